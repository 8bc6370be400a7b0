package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
)

// What is issued opens the doors that it is for, and no other.
func TestDoors(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	if got := ssh(t, l, "", "get-certificate"); got != read(t, l.Path("ca.crt")) {
		t.Errorf("get-certificate is not the CA: %s", got)
	}
	client, member := l.Path("kubemaster-01"), filepath.Join(l.Members["etcd-1"].Dir, "member")
	api, peer := "https://"+l.Address(11)+":2379", "https://"+l.Address(11)+":2380"
	for _, door := range []struct {
		what, url, certificate string
		open                   bool
	}{
		{"a client on 2379", api + "/health", client, true},
		{"a member on 2379", api + "/health", member, true},
		{"a member on 2380", peer + "/members", member, true},
		{"a client on 2380", peer + "/members", client, false},
		{"nobody on 2379", api + "/health", "", false},
		{"nobody on 2380", peer + "/members", "", false},
		{"plain HTTP on 2379", "http://" + l.Address(11) + ":2379/health", "", false},
	} {
		if status, err := get(t, l, door.url, door.certificate); (err == nil && status == 200) != door.open {
			t.Errorf("%s: %d, %v; want open %v", door.what, status, err, door.open)
		}
	}
	for _, args := range [][]string{{"put", "a", "b"}, {"get", "a"}, {"del", "a"}} {
		if _, err := l.Ctl("kubemaster-01", args...); err != nil {
			t.Error(err)
		}
	}
	if got, want := ssh(t, l, "", "get-peers"), api+"\n"; got != want {
		t.Errorf("get-peers is %q, want %q", got, want)
	}
	if got, want := ssh(t, l, "", "get-topology"), "etcd-1="+peer+"\n"; got != want {
		t.Errorf("get-topology is %q, want %q", got, want)
	}
	var status struct {
		Cluster     string
		Generations []struct{ Role, Fingerprint string }
		Members     []struct {
			Name, ID         string
			Learner, Healthy bool
		}
		Names []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(ssh(t, l, "", "get-status")), &status); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintln(status.Members[0].Name, status.Members[0].Healthy, status.Members[0].Learner, status.Generations[0].Role) != "etcd-1 true false active\n" ||
		len(status.Names) != 2 {
		t.Errorf("get-status is %+v", status)
	}
}

// Keys of every kind that openssl makes get a certificate that etcd takes.
func TestKeys(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	for i, options := range [][]string{
		{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
		{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
		{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"},
		{"-algorithm", "ED25519"},
	} {
		name := fmt.Sprintf("kubemaster-%d", i)
		if _, err := l.Run("", "openssl", append([]string{"genpkey", "-quiet", "-out", name + ".key"}, options...)...); err != nil {
			t.Fatal(err)
		}
		csr, err := l.Run("", "openssl", "req", "-new", "-key", name+".key", "-subj", "/CN=ignored")
		if err != nil {
			t.Fatal(err)
		}
		write(t, l.Path(name+".crt"), ssh(t, l, csr, name))
		if _, err := l.Ctl(name, "put", name, "x"); err != nil {
			t.Errorf("%v: %v", options, err)
		}
	}
}

// A member joins as a learner, is promoted, moves and is removed, and the
// signer says at each point what is so.
func TestJoin(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr := read(t, l.Path("kubemaster-01.csr"))
	from := func(n int) string { return l.Address(10 + n) }

	refused(t, l, 77, "each address must be the source's", csr, "etcd-2="+from(2))
	m, err := l.JoinMember(2)
	if err != nil {
		t.Fatal(err)
	}
	topology := fmt.Sprintf("etcd-1=https://%s:2380,etcd-2=https://%s:2380", from(1), from(2))
	got := strings.TrimSpace(ssh(t, l, "", "get-topology"))
	if parts := strings.Split(got, ","); len(parts) != 2 || !strings.Contains(got, "etcd-2=https://"+from(2)) {
		t.Errorf("with a learner that has not started get-topology is %q, want %q in any order", got, topology)
	}
	if got := ssh(t, l, "", "get-peers"); strings.Contains(got, from(2)) {
		t.Errorf("a learner is among the peers: %q", got)
	}
	bind := func(n int) string { return "-b" + from(n) }
	if _, err := l.Run(csr, "ssh", "-F", l.Path("ssh_config"), bind(3), "signer@leader", "etcd-3="+from(3)); exitCode(err) != 75 || !strings.Contains(err.Error(), "etcd-2 is joining") {
		t.Errorf("a second join at once: %v", err)
	}
	if _, err := l.Run(csr, "ssh", "-F", l.Path("ssh_config"), bind(2), "signer@leader", "etcd-3="+from(2)); exitCode(err) != 77 || !strings.Contains(err.Error(), "belongs to the member etcd-2") {
		t.Errorf("a join with another's address: %v", err)
	}
	if err := l.StartEtcd(m, got); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "etcd-2 votes", func() bool {
		return strings.Contains(ssh(t, l, "", "get-peers"), "https://"+from(2)+":2379\n")
	})
	if _, err := l.Ctl("kubemaster-01", "put", "a", "b"); err != nil {
		t.Error(err)
	}

	// It renews from wherever its key is, and moves only from its new address.
	own := []string{"-F", l.Path("ssh_config"), "-i", filepath.Join(m.Dir, "member.key"), "signer@keyless", "etcd-2=" + from(2)}
	memberCSR, err := l.Run("", "openssl", "req", "-new", "-key", filepath.Join(m.Dir, "member.key"), "-subj", "/CN=x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(memberCSR, "ssh", own...); err != nil {
		t.Errorf("a renewal by the member's own key: %v", err)
	}
	moved := []string{"-F", l.Path("ssh_config"), "-b", from(4), "signer@leader", "etcd-2=" + from(4)}
	if _, err := l.Run(memberCSR, "ssh", moved...); err != nil {
		t.Errorf("a move: %v", err)
	}
	if got := ssh(t, l, "", "get-topology"); !strings.Contains(got, "etcd-2=https://"+from(4)+":2380") {
		t.Errorf("after the move get-topology is %q", got)
	}
	moved[3], moved[5] = from(2), "etcd-2="+from(2)
	if _, err := l.Run(memberCSR, "ssh", moved...); err != nil {
		t.Errorf("the move back: %v", err)
	}
	// The name is the key's: a stranger neither moves nor replaces the member.
	if _, err := l.Run(csr, "ssh", moved...); exitCode(err) != 77 {
		t.Errorf("another key for the name: %v", err)
	}

	// Nor does it once nobody holds the name: the member is still there.
	ssh(t, l, "", "release", "etcd-2")
	stranger := []string{"-F", l.Path("ssh_config"), "-b", from(5), "signer@leader", "etcd-2=" + from(5)}
	if _, err := l.Run(csr, "ssh", stranger...); exitCode(err) != 77 || !strings.Contains(err.Error(), "etcd-2 is a member at https://"+from(2)) {
		t.Errorf("a stranger moves a member whose name is released: %v", err)
	}
	if _, err := l.Run(memberCSR, "ssh", moved...); err != nil {
		t.Errorf("the member itself, from its own address: %v", err)
	}

	eventually(t, 30*time.Second, "etcd-2 is removed", func() bool {
		_, err := l.SSH("", "remove", "etcd-2")
		return err == nil
	})
	if got := ssh(t, l, "", "get-topology"); strings.Contains(got, "etcd-2") {
		t.Errorf("after the removal get-topology is %q", got)
	}
	refused(t, l, 75, "last member that votes", "", "remove", "etcd-1")
	if _, err := l.Run(memberCSR, "ssh", own...); exitCode(err) != 255 {
		t.Errorf("the key of a removed member: %v", err)
	}
	if _, err := l.Ctl("kubemaster-01", "put", "a", "c"); err != nil {
		t.Error(err)
	}
}

// Without etcd clients and known members are served, and get-peers says what is
// known within five seconds; when etcd is back so is everything.
func TestEtcdAway(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	peers := ssh(t, l, "", "get-peers")
	m := l.Members["etcd-1"]
	if err := m.Process.Stop(); err != nil && !strings.Contains(err.Error(), "terminated") {
		t.Fatal(err)
	}
	begun := time.Now()
	if got := ssh(t, l, "", "get-peers"); got != peers {
		t.Errorf("without etcd get-peers is %q, want the last list %q", got, peers)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("get-peers took %s", took)
	}
	if _, err := l.Run("", "sh", "-c", "ssh -F ssh_config signer@leader get-peers 2>&1 >/dev/null | grep 'the last list'"); err != nil {
		t.Error(err)
	}
	ssh(t, l, "", "get-certificate")
	newClient(t, l, "kubemaster-01")
	csr, err := l.Run("", "openssl", "req", "-new", "-key", filepath.Join(m.Dir, "member.key"), "-subj", "/CN=x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(csr, "ssh", "-F", l.Path("ssh_config"), "-i", filepath.Join(m.Dir, "member.key"), "signer@keyless", "etcd-1="+m.Address); err != nil {
		t.Errorf("a known member's renewal: %v", err)
	}
	if _, err := l.Run(csr, "ssh", "-F", l.Path("ssh_config"), "-b", l.Address(12), "signer@leader", "etcd-2="+l.Address(12)); exitCode(err) != 75 {
		t.Errorf("a new member: %v", err)
	}
	if out, err := l.SSH("", "get-status"); err != nil || !strings.Contains(out, `"healthy": false`) {
		t.Errorf("get-status: %s, %v", out, err)
	}

	// A signer that starts without etcd serves all the same, but has no list.
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	refused(t, l, 75, "cannot use etcd", "", "get-peers")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("get-peers took %s", took)
	}
	ssh(t, l, read(t, l.Path("kubemaster-01.csr")), "kubemaster-01")
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "get-peers is back", func() bool {
		out, err := l.SSH("", "get-peers")
		return err == nil && out == peers
	})
}

// Without quorum get-peers is what the local member knows.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	m, err := l.JoinMember(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, strings.TrimSpace(ssh(t, l, "", "get-topology"))); err != nil {
		t.Fatal(err)
	}
	var peers string
	eventually(t, 30*time.Second, "etcd-2 votes", func() bool {
		peers = ssh(t, l, "", "get-peers")
		return strings.Count(peers, "\n") == 2
	})
	m.Process.Kill()
	eventually(t, 15*time.Second, "one member's list is given", func() bool {
		out := within5s(t, l)
		return out == peers && strings.Contains(read(t, l.Path("note")), "no quorum")
	})
	refused(t, l, 75, "cannot use etcd", "", "get-topology")
	newClient(t, l, "kubemaster-01")
}

// within5s asks for the peers, which takes five seconds at most, and leaves
// stderr in the file note.
func within5s(t *testing.T, l *lab.Lab) string {
	t.Helper()
	begun := time.Now()
	out, err := l.Run("", "sh", "-c", "ssh -F ssh_config signer@leader get-peers 2>note")
	if took := time.Since(begun); err != nil || took > 5*time.Second {
		t.Errorf("get-peers took %s: %v", took, err)
	}
	return out
}

// An etcd that accepts connections and answers nothing is as good as away.
func TestEtcdHangs(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	peers := ssh(t, l, "", "get-peers")
	m := l.Members["etcd-1"]
	if err := m.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if got := within5s(t, l); got != peers || !strings.Contains(read(t, l.Path("note")), "the last list") {
		t.Errorf("with an etcd that hangs get-peers is %q, %q", got, read(t, l.Path("note")))
	}
	newClient(t, l, "kubemaster-01")
	if err := m.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "etcd answers again", func() bool {
		return within5s(t, l) == peers && read(t, l.Path("note")) == ""
	})
}

// What is wrong between signerd and etcd is in the journal in TLS's own words,
// not as a deadline.
func TestRealTLSError(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	m, err := l.FoundMember()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
	// The signer's CA is another one now.
	if err := os.RemoveAll(l.Path("authority")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run("", l.Binary, "ca", "create", "--config", l.Path("signerd.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "the journal has the reason", func() bool {
		return strings.Contains(read(t, l.Path("signerd.log")), "x509: certificate signed by unknown authority")
	})
	refused(t, l, 75, "cannot use etcd", "", "get-peers")
}

// With etcd's authentication on, signerd is a user with the root role; without
// it, the journal says what to type.
func TestRBAC(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	const admin = "kubemaster-admin"
	newClient(t, l, admin)
	newClient(t, l, "kubemaster-01")
	for _, args := range [][]string{
		{"role", "add", "root"}, {"user", "add", "root", "--no-password"}, {"user", "grant-role", "root", "root"},
		{"user", "add", admin, "--no-password"}, {"user", "grant-role", admin, "root"}, {"auth", "enable"},
	} {
		if _, err := l.Ctl(admin, args...); err != nil && args[0] != "role" {
			t.Fatal(err)
		}
	}
	if _, err := l.JoinMember(2); exitCode(err) != 75 {
		t.Errorf("a join without the user signerd: %v", err)
	}
	eventually(t, 15*time.Second, "the journal says what to type", func() bool {
		return strings.Contains(read(t, l.Path("signerd.log")), "etcdctl user add signerd --no-password; etcdctl user grant-role signerd root")
	})
	if _, err := l.Ctl("kubemaster-01", "put", "a", "b"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a client without a role writes: %v", err)
	}
	for _, args := range [][]string{{"user", "add", "signerd", "--no-password"}, {"user", "grant-role", "signerd", "root"}} {
		if _, err := l.Ctl(admin, args...); err != nil {
			t.Fatal(err)
		}
	}
	m, err := l.JoinMember(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, strings.TrimSpace(ssh(t, l, "", "get-topology"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "etcd-2 votes", func() bool { return strings.Count(ssh(t, l, "", "get-peers"), "\n") == 2 })
}

// A ledger whose end is gone shows against the head that etcd keeps.
func TestCutLedgerShows(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	var head string
	eventually(t, 30*time.Second, "etcd has the ledger's head", func() bool {
		out, err := l.Ctl("kubemaster-01", "get", "/signerd/ledger", "--print-value-only")
		head = out
		return err == nil && strings.Contains(out, `"seq":`)
	})
	for i := range 2 {
		newClient(t, l, fmt.Sprintf("kubemaster-1%d", i))
	}
	eventually(t, 30*time.Second, "etcd has the new head", func() bool {
		out, err := l.Ctl("kubemaster-01", "get", "/signerd/ledger", "--print-value-only")
		return err == nil && out != head
	})
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(l.Path("ledger/*.jsonl"))
	lines := strings.SplitAfter(read(t, files[0]), "\n")
	write(t, files[0], strings.Join(lines[:2], ""))
	if _, err := l.Run("", l.Binary, "ledger", "verify", "--config", l.Path("signerd.yaml")); err != nil {
		t.Errorf("by itself the shorter ledger is whole: %v", err)
	}
	// It says so at each start, until a person decides.
	for starts := 1; starts <= 2; starts++ {
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 15*time.Second, "the journal says so", func() bool {
			return strings.Count(read(t, l.Path("signerd.log")), "its end was cut off") == starts
		})
		if err := l.Signer.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	before, err := l.Ctl("kubemaster-01", "get", "/signerd/ledger", "--print-value-only")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ctl("kubemaster-01", "del", "/signerd/ledger"); err != nil {
		t.Fatal(err)
	}
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "the ledger as it is counts", func() bool {
		out, err := l.Ctl("kubemaster-01", "get", "/signerd/ledger", "--print-value-only")
		return err == nil && strings.Contains(out, `"seq":`) && out != before
	})
}
