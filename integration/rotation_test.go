package integration

import (
	"encoding/pem"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
)

// renewMember has the certificate of a member issued again, as signerd sync does.
func renewMember(t *testing.T, l *lab.Lab, m *lab.Member) {
	t.Helper()
	key := filepath.Join(m.Dir, "member.key")
	csr, err := l.Run("", "openssl", "req", "-new", "-key", key, "-subj", "/CN=x")
	if err != nil {
		t.Fatal(err)
	}
	chain, err := l.SSHWith(csr, "-i", key, "signer@keyless", m.Name+"="+m.Address)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(m.Dir, "member.crt"), chain)
}

// restart lets a member load the CAs that are in place.
func restart(t *testing.T, l *lab.Lab, m *lab.Member) {
	t.Helper()
	if err := m.Process.Stop(); err != nil && !strings.Contains(err.Error(), "terminated") {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
}

// One rotation, step by step with the stock ssh: each step asked for too early is
// refused and names who is in the way; each that is done may be asked for again; and at
// the end etcd refuses the old CA.
func TestRotation(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	m := l.Members["etcd-1"]
	says := func(step string, sentences ...string) {
		t.Helper()
		answer := ssh(t, l, "", "rotate", step)
		for _, sentence := range sentences {
			if !strings.Contains(answer, sentence) {
				t.Errorf("rotate %s says %q, not %q", step, answer, sentence)
			}
		}
	}
	newClient(t, l, "kubemaster-01")
	newClient(t, l, "kubemaster-02")
	old, oldClient := ssh(t, l, "", "get-certificate"), l.Path("kubemaster-01")
	says("status", "resting", "active", "etcd-1", ":2380", "ssh signer@HOST rotate prepare")
	for _, step := range []string{"activate", "retire", "rollback"} {
		refused(t, l, 75, "begins with rotate prepare", "", "rotate", step)
	}
	says("abort", "nothing was to be done")

	says("prepare", "Next: rotate activate")
	says("prepare", "nothing was to be done")
	both := ssh(t, l, "", "get-certificate")
	if !strings.HasPrefix(both, old) || strings.Count(both, "BEGIN") != 2 {
		t.Errorf("the bundle after prepare: %s", both)
	}
	refused(t, l, 75, "rotate activate comes before rotate retire", "", "rotate", "retire")

	// Back to the beginning, and again.
	says("abort", "at rest")
	if got := ssh(t, l, "", "get-certificate"); got != old {
		t.Errorf("the bundle after abort: %s", got)
	}
	says("prepare", "Next: rotate activate")
	both = ssh(t, l, "", "get-certificate")
	says("activate", "Next: rotate retire")
	says("rollback", "prepared")
	newClient(t, l, "kubemaster-03") // by the old one again
	if strings.Count(read(t, l.Path("kubemaster-03.crt")), "BEGIN") != 1 {
		t.Error("what the old CA signs has more than one certificate")
	}
	says("activate", "Next: rotate retire")
	refused(t, l, 75, "rotate rollback comes before", "", "rotate", "abort")

	// What the new one signs is taken by an etcd that has never heard of it.
	newClient(t, l, "kubemaster-04")
	if strings.Count(read(t, l.Path("kubemaster-04.crt")), "BEGIN") != 2 {
		t.Error("what the new CA signs has no cross certificate with it")
	}
	if _, err := l.Ctl("kubemaster-04", "put", "a", "b"); err != nil {
		t.Error(err)
	}
	for _, sentence := range []string{"etcd-1", "does not serve a certificate by", "kubemaster-01 has a certificate by"} {
		refused(t, l, 75, sentence, "", "rotate", "retire")
	}
	says("status", "waits for", "release kubemaster-02", "--ca-fingerprint=", "back: rotate rollback")
	renewMember(t, l, m)
	for _, name := range []string{"kubemaster-01", "kubemaster-02", "kubemaster-03"} {
		ssh(t, l, "", "release", name)
	}
	says("retire", "Next: rotate finish")
	says("activate", "nothing was to be done")
	for _, step := range []string{"rollback", "abort"} {
		refused(t, l, 75, "there is no way back", "", "rotate", step)
	}
	bundle := ssh(t, l, "", "get-certificate")
	if old+bundle != both {
		t.Errorf("the bundle after retire: %s", bundle)
	}

	// Whoever has not been asked for the bundle since prepare is named.
	if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", l.Path("node")); err != nil {
		t.Fatal(err)
	}
	if err := l.Authorize(`permit="get-*,kubemaster-*"`, "node"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(); err != nil {
		t.Fatal(err)
	}
	csr, err := l.NewRequest("kubemaster-05")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.SSHWith(csr, "-i", l.Path("node"), "signer@keyless", "kubemaster-05"); err != nil {
		t.Fatal(err)
	}
	for _, sentence := range []string{"still accepts certificates by", "kubemaster-05 has not fetched a bundle with"} {
		refused(t, l, 75, sentence, "", "rotate", "finish")
	}
	write(t, l.Path("ca.crt"), bundle)
	restart(t, l, m)
	refused(t, l, 75, "kubemaster-05", "", "rotate", "finish")
	if _, err := l.SSHWith("", "-i", l.Path("kubemaster-05.key"), "signer@keyless", "get-certificate"); err != nil {
		t.Fatal(err)
	}
	says("finish", "at rest")
	says("finish", "nothing was to be done")
	refused(t, l, 75, "begins with rotate prepare", "", "rotate", "retire")

	if _, err := get(t, l, "https://"+l.Address(11)+":2379/health", oldClient); err == nil {
		t.Error("etcd lets a certificate by the old CA in")
	}
	newClient(t, l, "kubemaster-01")
	if strings.Count(read(t, l.Path("kubemaster-01.crt")), "BEGIN") != 1 {
		t.Error("after the rotation more than one certificate comes")
	}
	if _, err := l.Ctl("kubemaster-01", "put", "a", "c"); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(l.Path("authority/*.key")); len(left) != 2 { // the key, and active.key
		t.Errorf("the keys that are left: %v", left)
	}
	if out, err := l.Run("", l.Binary, "ledger", "verify", "--config", l.Path("signerd.yaml")); err != nil {
		t.Errorf("%s %v", out, err)
	}
}

// Without etcd no step is done, and all of them after it is back; a signer that is
// killed in between knows where it stands.
func TestRotationWithoutEtcd(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	m := l.Members["etcd-1"]
	ssh(t, l, "", "rotate", "prepare")
	if err := m.Process.Stop(); err != nil && !strings.Contains(err.Error(), "terminated") {
		t.Fatal(err)
	}
	refused(t, l, 75, "cannot use etcd", "", "rotate", "activate")
	l.Signer.Kill()
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	if status := ssh(t, l, "", "rotate", "status"); !strings.Contains(status, "prepared") || !strings.Contains(status, "which needs etcd") {
		t.Errorf("without etcd: %s", status)
	}
	newClient(t, l, "kubemaster-01")
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "activate is done", func() bool {
		_, err := l.SSH("", "rotate", "activate")
		return err == nil
	})
}

// rootOf makes a CA's certificate for a key with openssl, as operators do.
func rootOf(t *testing.T, l *lab.Lab, name, key, days string, more ...string) string {
	t.Helper()
	args := []string{"req", "-x509", "-key", key, "-days", days, "-subj", "/CN=" + name, "-addext", "basicConstraints=critical,CA:TRUE"}
	certificate, err := l.Run("", "openssl", append(args, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// A CA that was made elsewhere takes the place of the one there is, whatever openssl
// made of it; what is none is refused, and so is whoever may only prepare.
func TestRotationToSuppliedCA(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	for _, name := range []string{"root", "constrained", "clients", "later"} {
		if _, err := l.Run("", "openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", name+".key"); err != nil {
			t.Fatal(err)
		}
	}
	certificate, key := rootOf(t, l, "offline-root", "root.key", "3650", "-addext", "keyUsage=critical,keyCertSign"), read(t, l.Path("root.key"))
	sameKey := read(t, l.Path("authority/active.key")) + rootOf(t, l, "the same key", "authority/active.key", "3650", "-addext", "keyUsage=critical,keyCertSign")
	constrained := rootOf(t, l, "constrained", "constrained.key", "3650", "-addext", "nameConstraints=critical,permitted;DNS:example.com") + read(t, l.Path("constrained.key"))
	clients := rootOf(t, l, "clients", "clients.key", "3650", "-addext", "extendedKeyUsage=clientAuth") + read(t, l.Path("clients.key"))
	for what, test := range map[string]struct{ stdin, says string }{
		"names that it may not sign":  {constrained, "would not be accepted"},
		"usages that it may not sign": {clients, "would not be accepted"},
		"too short a life":            {rootOf(t, l, "short", "root.key", "20") + key, "must outlive"},
		"no key":                      {certificate, "no PEM private key"},
		"no certificate":              {key, "no PEM certificate"},
		"nothing":                     {"", "no PEM certificate"},
		"no PEM":                      {"hello", "no PEM"},
		"another key":                 {certificate + read(t, l.Path("authority/active.key")), "not the certificate's"},
		"no CA":                       {read(t, l.Members["etcd-1"].Dir+"/member.crt") + read(t, l.Members["etcd-1"].Dir+"/member.key"), "not a CA's"},
		"another of its key":          {sameKey, "have one key"},
		"the CA itself":               {read(t, l.Path("authority/active.crt")) + read(t, l.Path("authority/active.key")), "two generations"},
	} {
		t.Log(what)
		refused(t, l, 3, test.says, test.stdin, "rotate", "prepare", "--from")
	}
	if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", l.Path("rotator")); err != nil {
		t.Fatal(err)
	}
	if err := l.Authorize(`permit="get-*,rotate *"`, "rotator"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.SSHWith(certificate+key, "-i", l.Path("rotator"), "signer@keyless", "rotate", "prepare", "--from"); lab.ExitCode(err) != 77 {
		t.Errorf("a key that may only prepare: %v", err)
	}
	if _, err := l.SSHWith("", "-i", l.Path("rotator"), "signer@keyless", "rotate", "status"); err != nil {
		t.Error(err)
	}

	ssh(t, l, certificate+key, "rotate", "prepare", "--from")
	if answer := ssh(t, l, certificate+key, "rotate", "prepare", "--from"); !strings.Contains(answer, "nothing was to be done") {
		t.Errorf("the same again: %s", answer)
	}
	refused(t, l, 75, "a rotation to another CA goes on", rootOf(t, l, "later", "later.key", "3650")+read(t, l.Path("later.key")), "rotate", "prepare", "--from")
	block, _ := pem.Decode([]byte(certificate))
	if bundle := ssh(t, l, "", "get-certificate"); !strings.Contains(bundle, string(pem.EncodeToMemory(block))) {
		t.Errorf("the bundle: %s", bundle)
	}
	ssh(t, l, "", "rotate", "activate")
	newClient(t, l, "kubemaster-01")
	if out, err := l.Run("", "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", l.Path("ca.crt"), "-untrusted", "kubemaster-01.crt", "kubemaster-01.crt"); err != nil {
		t.Errorf("by the old CA: %s %v", out, err)
	}
	if _, err := l.Ctl("kubemaster-01", "put", "a", "b"); err != nil {
		t.Error(err)
	}
}

// A CA that may sign no other one (pathlen:0) is replaced by loading both in between: the
// new one does not sign before every member and every client has it.
func TestRotationByBundle(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	for _, args := range [][]string{
		{"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "old.key", "-out", "old.crt", "-days", "3650",
			"-subj", "/CN=etcd-ca", "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign"},
		{"chmod", "600", "old.key"},
		{"rm", "-r", "authority"},
		{l.Binary, "ca", "import", "--cert", "old.crt", "--key", "old.key", "--config", l.Path("signerd.yaml")},
	} {
		out, err := l.Run("", args[0], args[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if args[0] == l.Binary && !strings.Contains(out, "two restarts") {
			t.Errorf("import says %s", out)
		}
	}
	m := startCluster(t, l)
	newClient(t, l, "kubemaster-01")
	if answer := ssh(t, l, "", "rotate", "prepare"); !strings.Contains(answer, "may sign no other CA") {
		t.Errorf("prepare says %s", answer)
	}
	// Nobody here knows what the CA signed before it was imported, a moment ago.
	refused(t, l, 75, "has only what was signed since the CA came here", "", "rotate", "activate")
	state := read(t, l.Path("authority/state.json"))
	yesterday := time.Now().Add(-25 * time.Hour).UTC().Format(time.RFC3339)
	write(t, l.Path("authority/state.json"), regexp.MustCompile(`"unknown_before": "[^"]*"`).ReplaceAllString(state, `"unknown_before": "`+yesterday+`"`))
	refused(t, l, 75, "does not accept certificates by", "", "rotate", "activate")
	refused(t, l, 75, "kubemaster-01 has not fetched", "", "rotate", "activate")
	write(t, l.Path("ca.crt"), ssh(t, l, "", "get-certificate"))
	restart(t, l, m)
	ssh(t, l, "", "rotate", "activate")
	renewMember(t, l, m)
	newClient(t, l, "kubemaster-02")
	if n := strings.Count(read(t, l.Path("kubemaster-02.crt")), "BEGIN"); n != 1 {
		t.Errorf("%d certificates come without a cross certificate", n)
	}
	if _, err := l.Ctl("kubemaster-02", "put", "a", "b"); err != nil {
		t.Error(err)
	}
	ssh(t, l, "", "release", "kubemaster-01")
	ssh(t, l, "", "rotate", "retire")
	refused(t, l, 75, "still accepts certificates by", "", "rotate", "finish")
	write(t, l.Path("ca.crt"), ssh(t, l, "", "get-certificate"))
	restart(t, l, m)
	ssh(t, l, "", "rotate", "finish")
	if _, err := l.Ctl("kubemaster-02", "put", "a", "c"); err != nil {
		t.Error(err)
	}
}

// auto goes as far as the gates let it, and says where it stops; at rest it leaves a CA
// that is young alone.
func TestRotateAuto(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	m := l.Members["etcd-1"]
	if answer := ssh(t, l, "", "rotate", "auto"); !strings.Contains(answer, "at rest") {
		t.Errorf("at rest: %s", answer)
	}
	newClient(t, l, "kubemaster-01")
	ssh(t, l, "", "rotate", "prepare")
	ssh(t, l, "", "rotate", "activate")
	ssh(t, l, "", "rotate", "rollback")
	refused(t, l, 75, "the last step led back", "", "rotate", "auto")
	ssh(t, l, "", "rotate", "activate")
	refused(t, l, 75, "rotate retire waits for etcd-1", "", "rotate", "auto")
	renewMember(t, l, m)
	refused(t, l, 75, "kubemaster-01 has a certificate by", "", "rotate", "auto")
	ssh(t, l, "", "release", "kubemaster-01")
	refused(t, l, 75, "rotate finish waits for etcd-1", "", "rotate", "auto")
	write(t, l.Path("ca.crt"), ssh(t, l, "", "get-certificate"))
	restart(t, l, m)
	if answer := ssh(t, l, "", "rotate", "auto"); !strings.Contains(answer, "at rest") {
		t.Errorf("at the end: %s", answer)
	}
}
