package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
)

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
	if _, err := l.SSHWith(csr, "-i", filepath.Join(m.Dir, "member.key"), "signer@keyless", "etcd-1="+m.Address); err != nil {
		t.Errorf("a known member's renewal: %v", err)
	}
	if _, err := l.SSHWith(csr, "-b", l.Address(12), "signer@leader", "etcd-2="+l.Address(12)); lab.ExitCode(err) != 75 {
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
	// The signer's CA is another one now, which shows when etcd is there.
	if err := os.RemoveAll(l.Path("authority")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run("", l.Binary, "ca", "create", "--config", l.Path("signerd.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the journal has the reason", func() bool {
		refused(t, l, 75, "cannot use etcd", "", "get-peers")
		log := read(t, l.Path("signerd.log"))
		return strings.Contains(log, "x509: certificate signed by unknown authority") && strings.Contains(log, "was a CA made anew here")
	})
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
