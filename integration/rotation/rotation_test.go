package rotation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/load"
)

func always(c *tls.Certificate) func(context.Context) (*tls.Certificate, error) {
	return func(context.Context) (*tls.Certificate, error) { return c, nil }
}

// fuse is a client that has what it was given once, until it must renew. It has an SSH
// key of its own.
type fuse struct {
	*fleet.Client
	w          *world
	name, host string // host: its known_hosts
}

func (w *world) newFuse(t *testing.T, name string) *fuse {
	t.Helper()
	f := &fuse{&fleet.Client{Dir: t.TempDir()}, w, name, w.KnownHosts(t)}
	for _, args := range [][]string{
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f.path("id")},
		{"openssl", "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f.path("client.key")},
		{"openssl", "req", "-new", "-key", f.path("client.key"), "-subj", "/CN=" + name, "-out", f.path("client.csr")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := w.Bed.Push("h1", f.path("id.pub"), "/etc/signerd/new"); err != nil {
		t.Fatal(err)
	}
	w.On(t, "h1", "sh", "-c", `printf 'permit="get-*,`+name+`" ' | cat - /etc/signerd/new >> /etc/signerd/authorized_keys && rm /etc/signerd/new && systemctl reload signerd && sync`)
	fleet.Eventually(t, 10*time.Second, "its key is let in", func() error {
		_, err := f.ask("help", "")
		return err
	})
	f.fetch(t)
	f.renew(t, 1)
	return f
}

func (f *fuse) path(name string) string { return filepath.Join(f.Dir, name) }

func (f *fuse) ask(command, stdin string) (string, error) {
	cmd := exec.Command("ssh", "-F", "none", "-i", f.path("id"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile="+f.host, "signer@"+f.w.Bed.Address(11), command)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	return string(out), err
}

// renew gets a new certificate for its key, and no CAs. It comes with so many.
func (f *fuse) renew(t *testing.T, n int) {
	t.Helper()
	request, err := os.ReadFile(f.path("client.csr"))
	if err != nil {
		t.Fatal(err)
	}
	f.take(t, "client.crt", f.name, string(request), n)
}

// fetch gets the CAs, which it loads when it is started again.
func (f *fuse) fetch(t *testing.T) {
	t.Helper()
	f.take(t, "ca.crt", "get-certificate", "", 1)
}

// take puts an answer of so many certificates in place by a rename: somebody may be
// reading.
func (f *fuse) take(t *testing.T, name, command, stdin string, n int) {
	t.Helper()
	answer, err := f.ask(command, stdin)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(answer, "BEGIN CERTIFICATE"); got != n {
		t.Errorf("%s: the answer has %d certificates, want %d", command, got, n)
	}
	fleet.Write(t, f.path(name+".new"), answer)
	if err := os.Rename(f.path(name+".new"), f.path(name)); err != nil {
		t.Fatal(err)
	}
}

// A whole rotation while three clients write, 200 times a second together: one that has
// only the old CA, one that renews, and one that comes midway. Nothing is lost, each
// member is restarted once, and at the end whoever has stolen the old key is out.
func TestWholeRotation(t *testing.T) {
	w := cluster(t)
	began := time.Now()
	thief := w.steal(t)
	if open := thief.admitted(t, w); len(open) != 6 {
		t.Fatalf("before the rotation the stolen key opens %v: the test is wrong", open)
	}
	renews := w.NewClient(t, "kubemaster-01")
	old := w.newFuse(t, "kubemaster-02")
	loads := map[string]*load.Load{
		"has the old CA": w.Write(t, old.Client, 70),
		"renews":         w.Write(t, renews, 70),
	}
	mustRenew := time.Now().Add(80 * time.Second) // of its two minutes

	w.rotate(t, "prepare", time.Minute)
	w.blocked(t, "retire", "rotate activate comes before")
	fleet.Eventually(t, time.Minute, "all members have both CAs in their files", func() error { return w.inFiles(2) })
	w.rotate(t, "activate", time.Minute)
	midway := w.NewClient(t, "kubemaster-03")
	loads["comes midway"] = w.Write(t, midway, 60)
	w.blocked(t, "retire", "kubemaster-02 has a certificate by")
	w.joins(t, 2, 2)
	fleet.Eventually(t, 2*time.Minute, "it must renew", func() error {
		if time.Now().Before(mustRenew) {
			return errors.New("not yet")
		}
		return nil
	})
	old.renew(t, 2)
	w.rotate(t, "retire", 3*time.Minute)
	w.blocked(t, "finish", "still accepts certificates by")
	fleet.Eventually(t, 3*time.Minute, "the members have been restarted", func() error {
		if open := thief.admitted(t, w); len(open) > 0 {
			return fmt.Errorf("the stolen key opens %v", open)
		}
		return nil
	})
	w.blocked(t, "finish", "kubemaster-02 has not fetched a bundle with")

	// Clients that have only the old CA are started again with what they fetched.
	reports := end(t, loads)
	old.fetch(t)
	loads = map[string]*load.Load{
		"has the old CA": w.Write(t, old.Client, 70), "renews": w.Write(t, renews, 70), "comes midway": w.Write(t, midway, 60),
	}
	w.rotate(t, "finish", time.Minute)
	finished := time.Now()
	old.renew(t, 1)
	w.Well(t, time.Minute)
	fleet.Eventually(t, 2*time.Minute, "all members serve certificates without the cross certificate", func() error { return w.inChains(1) })
	for what, report := range end(t, loads) {
		reports[what+", after"] = report
	}
	for what, report := range reports {
		t.Logf("%s: %s", what, report)
		if report.Lost > 0 {
			t.Errorf("%s: writes were lost: %s", what, report)
		}
	}
	w.oneRestartEach(t, began)
	if open := thief.admitted(t, w); len(open) > 0 {
		t.Errorf("the stolen key opens %v", open)
	}
	if n := len(w.bundle(t)); n != 1 {
		t.Errorf("%d CAs are handed out", n)
	}
	if out := w.On(t, "h1", "sh", "-c", "ls /var/lib/signerd/authority/*.key | wc -l"); strings.TrimSpace(out) != "2" {
		t.Errorf("%s keys are left", out)
	}
	t.Logf("the rotation took %s", finished.Sub(began).Round(time.Second))
}

// inFiles says which member's bundle has another number of CAs.
func (w *world) inFiles(n int) error { return w.count("/etc/etcd/pki/ca.crt", n) }

// inChains says which member's certificate comes with others than so many.
func (w *world) inChains(n int) error { return w.count("/etc/etcd/pki/member.crt", n) }

func (w *world) count(path string, n int) error {
	for _, name := range fleet.Names {
		out, err := w.Bed.Exec(name, "grep", "-c", "BEGIN CERTIFICATE", path)
		if err != nil {
			return err
		}
		if strings.TrimSpace(out) != strconv.Itoa(n) {
			return fmt.Errorf("%s on %s has %s", path, name, strings.TrimSpace(out))
		}
	}
	return nil
}

// end stops loads and gives what became of them.
func end(t *testing.T, loads map[string]*load.Load) map[string]load.Report {
	t.Helper()
	reports := map[string]load.Report{}
	for what, l := range loads {
		report, err := l.Stop()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		reports[what] = report
	}
	return reports
}
