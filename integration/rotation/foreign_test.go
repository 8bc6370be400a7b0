package rotation

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/load"
)

// CAs that were made elsewhere are taken and rotated away again while a client writes, in
// a cluster with etcd's authentication on.
func TestForeignCAs(t *testing.T) {
	if !long {
		t.Skip("the tests without hosts have most of it; make long")
	}
	w := cluster(t)
	c := w.NewClient(t, "kubemaster-01")
	w.authenticate(t, "kubemaster-01")
	const usage = " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
	for _, test := range []struct {
		name, make string // a shell's line that makes root.crt and root.key; none: signerd makes it
		restarts   int    // of each member; two where the old CA cannot sign the new one
	}{
		{"openssl's, RSA", "openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 3650 -subj '/CN=old scripts'", 1},
		{"as kubeadm makes it", "openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 3650 -set_serial 0 -subj /CN=etcd-ca -addext subjectAltName=DNS:etcd-ca" +
			" -addext keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign", 1},
		{"without a subject key identifier", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.crt -days 3650 -subj '/CN=no SKI'" + usage +
			" -addext subjectKeyIdentifier=none -addext authorityKeyIdentifier=none", 1},
		{"pathlen:0", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout root.key -out root.crt -days 3650 -subj '/CN=no path'" +
			" -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign", 1},
		{"signerd's own", "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			thief := w.steal(t)
			if open := thief.admitted(t, w); len(open) != 6 {
				t.Fatalf("before the rotation the stolen key opens %v: the test is wrong", open)
			}
			began := time.Now()
			loads := map[string]*load.Load{"has one CA": w.Write(t, c, 50)}
			w.prepareFrom(t, test.make)
			fleet.Eventually(t, time.Minute, "the client has fetched both", func() error {
				bundle, err := os.ReadFile(filepath.Join(c.Dir, "ca.crt"))
				if err == nil && strings.Count(string(bundle), "BEGIN CERTIFICATE") != 2 {
					err = errors.New("not yet")
				}
				return err
			})
			reports := end(t, loads) // it is started again, as a kube-apiserver is
			loads = map[string]*load.Load{"has both": w.Write(t, c, 50)}
			w.rotate(t, "activate", 3*time.Minute)
			w.forget(t, c, "kubemaster-01")
			w.rotate(t, "retire", 3*time.Minute)
			w.rotate(t, "finish", 3*time.Minute)
			w.Well(t, time.Minute)
			for what, report := range end(t, loads) {
				reports[what] = report
			}
			for what, report := range reports {
				t.Logf("%s: %s", what, report)
				if report.Lost > 0 {
					t.Errorf("%s: writes were lost: %s", what, report)
				}
			}
			if open := thief.admitted(t, w); len(open) > 0 {
				t.Errorf("the stolen key opens %v", open)
			}
			for _, name := range fleet.Names {
				if n := w.restarts(name, began); n != test.restarts {
					t.Errorf("etcd on %s was restarted %d times, want %d", name, n, test.restarts)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// prepareFrom begins a rotation to a CA that a shell's line makes.
func (w *world) prepareFrom(t *testing.T, line string) {
	t.Helper()
	if line == "" {
		w.rotate(t, "prepare", time.Minute)
		return
	}
	cmd := exec.Command("sh", "-ec", line+" 2>/dev/null; cat root.crt root.key")
	cmd.Dir = t.TempDir()
	root, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.SSH(t, string(root), "rotate", "prepare", "--from"); err != nil {
		t.Fatal(err)
	}
}

// authenticate turns etcd's role-based access control on, as signerd(8) has it, with a
// client that may do all.
func (w *world) authenticate(t *testing.T, admin string) {
	t.Helper()
	lines := "role add root; user add root --no-password; user grant-role root root; role add signerd-member; role grant-permission signerd-member readwrite /signerd/restart"
	for _, user := range []string{"signerd", admin} {
		lines += "; user add " + user + " --no-password; user grant-role " + user + " root"
	}
	for _, name := range fleet.Names {
		lines += "; user add etcd-" + name + " --no-password; user grant-role etcd-" + name + " signerd-member"
	}
	for line := range strings.SplitSeq(lines+"; auth enable", "; ") {
		if out, err := w.Ctl("h1", strings.Fields(line)...); err != nil && line != "role add root" {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}
