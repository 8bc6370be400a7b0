package integration

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/peers"
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

// signing gives what etcd has of who signs.
func signing(t *testing.T, l *lab.Lab) (s peers.Signing) {
	t.Helper()
	eventually(t, 30*time.Second, "etcd has who signs", func() bool {
		said, err := l.Ctl("kubemaster-01", "get", "--print-value-only", "/signerd/ca")
		return err == nil && json.Unmarshal([]byte(said), &s) == nil
	})
	return s
}

// Of two signers with the same CA the later one signs, and the other one says so and
// neither signs nor starts, until a person decides.
func TestTwins(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr, err := l.NewRequest("kubemaster-02")
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := signing(t, l).Fingerprint
	for what, test := range map[string]struct {
		change func(*peers.Signing)
		says   string
	}{
		"a later epoch":             {func(s *peers.Signing) { s.Epoch, s.Signer = s.Epoch+1, "00" }, "another signer took over"},
		"the same epoch by another": {func(s *peers.Signing) { s.Signer = "00" }, "another signer took over"},
		"another CA":                {func(s *peers.Signing) { s.Fingerprint = strings.Repeat("0", 64) }, "the cluster has another CA"},
	} {
		t.Log(what)
		there := signing(t, l)
		before := there.Epoch
		test.change(&there)
		value, err := json.Marshal(there)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Ctl("kubemaster-01", "put", "/signerd/ca", string(value)); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "nothing is signed", func() bool {
			_, err := l.SSH(csr, "kubemaster-02")
			return lab.ExitCode(err) == 75 && strings.Contains(err.Error(), test.says)
		})
		refused(t, l, 75, test.says, "", "rotate", "prepare")
		refused(t, l, 75, test.says, "", "get-certificate")
		refused(t, l, 75, test.says, "", "release", "kubemaster-01")
		refused(t, l, 75, test.says, "", "remove", "etcd-9")
		if err := l.Signer.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := l.StartSigner(); err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "signerd ca adopt") {
			t.Errorf("it starts: %v", err)
		}
		if _, err := l.Run("", l.Binary, "ca", "adopt", "--fingerprint", strings.Repeat("0", 64), "--config", l.Path("signerd.yaml")); lab.ExitCode(err) != 78 {
			t.Errorf("another CA is adopted: %v", err)
		}
		out, err := l.Run("", l.Binary, "ca", "adopt", "--fingerprint", fingerprint, "--config", l.Path("signerd.yaml"))
		if err != nil || !strings.Contains(out, "and no other one") {
			t.Fatalf("%s %v", out, err)
		}
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
		ssh(t, l, csr, "kubemaster-02")
		if now := signing(t, l); now.Fingerprint != fingerprint || now.Epoch <= before {
			t.Errorf("etcd has %+v, and was in epoch %d", now, before)
		}
	}
}

// head gives the ledger's head in etcd; empty: there is none.
func head(t *testing.T, l *lab.Lab) string {
	t.Helper()
	said, err := l.Ctl("kubemaster-01", "get", "--print-value-only", "/signerd/ledger")
	if err != nil {
		t.Log(err)
	}
	return said
}

// clone copies what a signer is, for another port.
func clone(t *testing.T, l *lab.Lab) (config string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	if out, err := l.Run("", "sh", "-c", "mkdir "+dir+" && cp -a host_key authorized_keys authority ledger "+dir+" && sed s/:2222/:2223/ signerd.yaml > "+dir+"/signerd.yaml"); err != nil {
		t.Fatal(out, err)
	}
	return filepath.Join(dir, "signerd.yaml")
}

// askClone asks the signer at the other port.
func askClone(l *lab.Lab, stdin string, command ...string) (string, error) {
	return l.SSHWith(stdin, append([]string{"-p", "2223", "-o", "HostKeyAlias=[" + l.Address(1) + "]:2222", "signer@leader"}, command...)...)
}

// A machine that was cloned a while ago has a shorter ledger: it signs no more as soon as
// it sees that the longer one goes on, which does.
func TestOlderClone(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr := read(t, l.Path("kubemaster-01.csr"))
	config := clone(t, l)
	// Who signs is the same in other words.
	spaced, err := json.MarshalIndent(signing(t, l), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ctl("kubemaster-01", "put", "/signerd/ca", string(spaced)); err != nil {
		t.Fatal(err)
	}
	before := ""
	for range 2 {
		ssh(t, l, csr, "kubemaster-01")
		eventually(t, 30*time.Second, "etcd has the ledger's head", func() bool { return !slices.Contains([]string{"", before}, head(t, l)) })
		before = head(t, l)
	}
	process, err := lab.Start(l.Path("clone.log"), nil, l.Binary, "serve", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Kill()
	eventually(t, 30*time.Second, "the clone finds the head", func() bool { return strings.Contains(read(t, l.Path("clone.log")), "does not reach the head") })
	ssh(t, l, csr, "kubemaster-01")
	eventually(t, 40*time.Second, "the clone signs no more", func() bool {
		_, err := askClone(l, csr, "kubemaster-01")
		return lab.ExitCode(err) == 75 && strings.Contains(err.Error(), "another signer took over")
	})
	ssh(t, l, csr, "kubemaster-01")
}

// A machine that was cloned just now is a second signer of the same tenure, too: when both
// have written to their ledgers one of them signs no more, until a person decides.
func TestClonedSigner(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr := read(t, l.Path("kubemaster-01.csr"))
	eventually(t, 30*time.Second, "etcd has the ledger's head", func() bool { return head(t, l) != "" })
	before := head(t, l)
	process, err := lab.Start(l.Path("clone.log"), nil, l.Binary, "serve", "--config", clone(t, l))
	if err != nil {
		t.Fatal(err)
	}
	defer process.Kill()
	// Each start makes a certificate for signerd itself.
	eventually(t, 30*time.Second, "the clone writes its head", func() bool { return !slices.Contains([]string{"", before}, head(t, l)) })
	ssh(t, l, csr, "kubemaster-01")
	eventually(t, 30*time.Second, "the other one sees it", func() bool {
		_, err := l.SSH(csr, "kubemaster-01")
		return lab.ExitCode(err) == 75 && strings.Contains(err.Error(), "another signer took over")
	})
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err == nil || !strings.Contains(err.Error(), "another signer took over") {
		t.Errorf("it starts: %v", err)
	}
	of := head(t, l)
	if out, err := l.Run("", l.Binary, "ca", "adopt", "--fingerprint", signing(t, l).Fingerprint, "--config", l.Path("signerd.yaml")); err != nil {
		t.Fatal(out, err)
	}
	if now := head(t, l); now == of {
		t.Errorf("the clone's head still counts: %s", now)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	ssh(t, l, csr, "kubemaster-01")
	eventually(t, 30*time.Second, "the clone signs no more", func() bool {
		_, err := askClone(l, csr, "kubemaster-01")
		return lab.ExitCode(err) == 75 && strings.Contains(err.Error(), "another signer took over")
	})
}

// Whoever dies while it takes over has not, and signs nothing before it is asked again:
// not with a tenure that etcd does not have yet, and not with one that is not settled here.
func TestAdoptionSurvives(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	before := signing(t, l)
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	there := peers.Signing{Fingerprint: before.Fingerprint, Epoch: before.Epoch + 1, Signer: "00"}
	value, err := json.Marshal(there)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ctl("kubemaster-01", "put", "/signerd/ca", string(value)); err != nil {
		t.Fatal(err)
	}
	const says = "another signer took over"
	if err := l.StartSigner(); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("it starts: %v", err)
	}
	stops := filepath.Join(t.TempDir(), "signerd")
	if err := lab.BuildSignerd(stops, "crashpoints"); err != nil {
		t.Fatal(err)
	}
	adopt := []string{"ca", "adopt", "--fingerprint", before.Fingerprint, "--config", l.Path("signerd.yaml")}
	for at, told := range map[string]bool{"before-1": false, "after-1": false, "before-2": true} { // each is a write of state.json
		process, err := lab.Start(l.Path("adopt.log"), []string{"SIGNERD_STOP=" + at}, stops, adopt...)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "it stands at "+at, func() bool {
			return process.Ended() || strings.Contains(read(t, fmt.Sprintf("/proc/%d/stat", process.PID())), ") T ")
		})
		if process.Ended() {
			t.Fatalf("%s: it ended\n%s", at, read(t, l.Path("adopt.log")))
		}
		process.Kill()
		now := signing(t, l)
		if told != (now != there) {
			t.Errorf("%s: etcd has %+v, and had %+v", at, now, there)
		}
		there = now
		if err := l.StartSigner(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: it starts: %v", at, err)
		}
	}
	if out, err := l.Run("", l.Binary, adopt...); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	if now := signing(t, l); now.Epoch <= there.Epoch {
		t.Errorf("etcd has %+v, and had %+v", now, there)
	}
}

// A CA that was made anew beside an etcd that has the old one is refused, and said; so
// is etcd made anew no hindrance to the CA there is.
func TestCAMadeAnew(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.Path("authority"), l.Path("kept")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run("", l.Binary, "ca", "create", "--config", l.Path("signerd.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err == nil || !strings.Contains(err.Error(), "was a CA made anew here") {
		t.Errorf("it starts: %v", err)
	}
	if err := errors.Join(os.RemoveAll(l.Path("authority")), os.Rename(l.Path("kept"), l.Path("authority"))); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	newClient(t, l, "kubemaster-01")
	before := signing(t, l)

	m := l.Members["etcd-1"]
	if err := m.Process.Stop(); err != nil && !strings.Contains(err.Error(), "terminated") {
		t.Fatal(err)
	}
	newClient(t, l, "kubemaster-02") // without etcd signing goes on
	if err := os.RemoveAll(filepath.Join(m.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
	if now := signing(t, l); now != before {
		t.Errorf("a new etcd has %+v, want %+v", now, before)
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

// A backup of before a step that changed who signs is restored, and signs nothing before
// a person has said that it is right; one of the CA as it is signs as soon as etcd knows.
func TestRestore(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr, err := l.NewRequest("kubemaster-02")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		return l.Run("", l.Binary, append(args, "--config", l.Path("signerd.yaml"))...)
	}
	backup := func(name string) {
		t.Helper()
		if out, err := run("ca", "backup", "--recipient", strings.TrimSpace(read(t, l.Path("keeper.pub"))), "--output", name); err != nil {
			t.Fatalf("%s %v", out, err)
		}
	}
	restore := func(name, fingerprint string) {
		t.Helper()
		if err := l.Signer.Stop(); err != nil {
			t.Fatal(err)
		}
		lost := t.TempDir()
		for _, file := range []string{"authority", "ledger", "signerd.yaml", "host_key", "authorized_keys"} {
			if err := os.Rename(l.Path(file), filepath.Join(lost, file)); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := run("ca", "restore", "--identity", "keeper", "--fingerprint", fingerprint, name); err != nil {
			t.Fatalf("%s %v", out, err)
		}
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", l.Path("keeper")); err != nil {
		t.Fatal(err)
	}
	first := signing(t, l)
	ssh(t, l, "", "rotate", "prepare")
	backup("before.age")
	ssh(t, l, "", "rotate", "activate")
	backup("after.age")
	second := signing(t, l)

	restore("before.age", first.Fingerprint)
	for _, command := range []string{"kubemaster-02", "get-certificate", "get-status"} {
		refused(t, l, 75, "restored from a backup", csr, command)
	}
	refused(t, l, 75, "restored from a backup", "", "rotate", "activate")
	if now := signing(t, l); now != second {
		t.Errorf("etcd has %+v, want %+v", now, second)
	}

	restore("after.age", second.Fingerprint)
	eventually(t, 20*time.Second, "it signs", func() bool {
		_, err := l.SSH(csr, "kubemaster-02")
		return err == nil
	})
	if now := signing(t, l); now.Fingerprint != second.Fingerprint || now.Epoch != second.Epoch+1 {
		t.Errorf("etcd has %+v, and had %+v", now, second)
	}
	// Names are held as they were.
	other, err := l.NewRequest("other")
	if err != nil {
		t.Fatal(err)
	}
	refused(t, l, 77, "held by another key", other, "kubemaster-01")

	// The same backup once more, on a third machine: the later decision counts.
	restore("after.age", second.Fingerprint)
	eventually(t, 20*time.Second, "it signs", func() bool {
		_, err := l.SSH(csr, "kubemaster-02")
		return err == nil
	})
	if now := signing(t, l); now.Epoch != second.Epoch+2 {
		t.Errorf("etcd has %+v, and had %+v", now, second)
	}
}
