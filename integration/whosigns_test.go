package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/peers"
)

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

// What is adopted without etcd signs before etcd is told, and then whoever signed before
// signs no more; but not with a CA that etcd no longer has.
func TestAdoptedWithoutEtcd(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr := read(t, l.Path("kubemaster-01.csr"))
	eventually(t, 30*time.Second, "etcd has the ledger's head", func() bool { return head(t, l) != "" })
	before := signing(t, l)
	m := l.Members["etcd-1"]
	for what, test := range map[string]struct {
		there peers.Signing
		says  string
	}{
		"another signer": {peers.Signing{Fingerprint: before.Fingerprint, Epoch: before.Epoch + 5, Signer: "00"}, ""},
		"another CA":     {peers.Signing{Fingerprint: strings.Repeat("0", 64), Epoch: before.Epoch, Signer: before.Signer}, "Restore a later backup, or if this CA is right"},
	} {
		t.Log(what)
		if err := l.Signer.Stop(); err != nil {
			t.Fatal(err)
		}
		value, err := json.Marshal(test.there)
		if err != nil {
			t.Fatal(err)
		}
		for key, text := range map[string]string{"/signerd/ca": string(value), "/signerd/ledger": "another one's"} {
			if _, err := l.Ctl("kubemaster-01", "put", key, text); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Process.Stop(); err != nil && !strings.Contains(err.Error(), "terminated") {
			t.Fatal(err)
		}
		if out, err := l.Run("", l.Binary, "ca", "adopt", "--without-etcd", "--fingerprint", before.Fingerprint, "--config", l.Path("signerd.yaml")); err != nil {
			t.Fatal(out, err)
		}
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
		ssh(t, l, csr, "kubemaster-01")
		if err := l.StartEtcd(m, ""); err != nil {
			t.Fatal(err)
		}
		if test.says != "" {
			eventually(t, 30*time.Second, "it signs no more", func() bool {
				_, err := l.SSH(csr, "kubemaster-01")
				return lab.ExitCode(err) == 75 && strings.Contains(err.Error(), test.says)
			})
			if now := signing(t, l); now != test.there {
				t.Errorf("etcd has %+v, want %+v", now, test.there)
			}
		} else {
			eventually(t, 30*time.Second, "etcd is told", func() bool {
				now := signing(t, l)
				return now.Fingerprint == before.Fingerprint && now.Epoch == test.there.Epoch+1 && now.Signer != test.there.Signer
			})
			if now := head(t, l); strings.Contains(now, "another one's") {
				t.Errorf("the head is still %q", now)
			}
			ssh(t, l, csr, "kubemaster-01")
		}
		// It is right for the next one.
		if err := l.Signer.Stop(); err != nil {
			t.Fatal(err)
		}
		if out, err := l.Run("", l.Binary, "ca", "adopt", "--fingerprint", before.Fingerprint, "--config", l.Path("signerd.yaml")); err != nil {
			t.Fatal(out, err)
		}
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
		ssh(t, l, csr, "kubemaster-01")
	}
	// What another one may have signed is not in the ledger.
	ssh(t, l, "", "rotate", "prepare")
	ssh(t, l, "", "rotate", "activate")
	refused(t, l, 75, "or this signer took over, at", "", "rotate", "retire")
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
	stops := filepath.Join(t.TempDir(), "signerd")
	if err := lab.BuildSignerd(stops, "crashpoints"); err != nil {
		t.Fatal(err)
	}
	adopt := []string{"ca", "adopt", "--fingerprint", before.Fingerprint, "--config", l.Path("signerd.yaml")}
	breakOff := func(at string) {
		t.Helper()
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
	}
	const says = "another signer took over"
	// The signer that signs is adopted once more.
	breakOff("before-1")
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	breakOff("after-1")
	if err := l.StartSigner(); err == nil || !strings.Contains(err.Error(), "signerd ca adopt broke off") {
		t.Errorf("it starts: %v", err)
	}

	there := peers.Signing{Fingerprint: before.Fingerprint, Epoch: before.Epoch + 1, Signer: "00"}
	value, err := json.Marshal(there)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ctl("kubemaster-01", "put", "/signerd/ca", string(value)); err != nil {
		t.Fatal(err)
	}
	for at, told := range map[string]bool{"before-1": false, "after-1": false, "before-2": true} { // each is a write of state.json
		breakOff(at)
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

	// The ledger that was restored counts, after a start too.
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	of := head(t, l)
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the head goes on", func() bool { return head(t, l) != of })
	if log := read(t, l.Path("signerd.log")); strings.Contains(log, "does not reach the head") {
		t.Errorf("the log has:\n%s", log)
	}

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
