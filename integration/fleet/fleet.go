// Package fleet is what tests on real hosts share: packages with a build's tags,
// and disks that hosts begin with, of a machine to set up and of one that signs.
package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/hosts"
	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/internal/need"
)

// The machine that signs, and its member.
const (
	Cluster = "prod-a"
	Setup   = "/root/setup/first-boot.sh"
)

// World is a bed of hosts, and what they begin with.
type World struct {
	Bed    *hosts.Bed
	Dir    string
	Debs   []string // the packages
	Bare   string   // a disk with the packages, etcd and an SSH key that may do everything
	Signer string   // the same after first-boot init as h1
}

// New makes a World of packages that are built with some tags. What there is of
// it has to be closed, whatever the error.
func New(tags string) (*World, error) {
	dir, err := os.MkdirTemp("", "signerd-fleet-")
	if err != nil {
		return nil, err
	}
	w := &World{Dir: dir, Bare: filepath.Join(dir, "bare.img"), Signer: filepath.Join(dir, "signer.img")}
	if w.Bed, err = hosts.New(10 + os.Getpid()%200); err != nil {
		return w, err
	}
	if w.Debs, err = w.Packages("1.0.0", tags); err != nil {
		return w, err
	}
	if err := w.makeBare(); err != nil {
		return w, fmt.Errorf("making a machine to begin with: %w", err)
	}
	return w, w.makeSigner()
}

// Close ends all hosts and removes all files.
func (w *World) Close() error {
	var err error
	if w.Bed != nil {
		err = w.Bed.Close()
	}
	return errors.Join(err, os.RemoveAll(w.Dir))
}

// made is the world of a test's process, once a test asks for it.
var made struct {
	sync.Once
	tags  string
	world *World
	err   error
}

// Main runs a package's tests, which share one World, and gives the exit code.
func Main(m *testing.M, tags string) int {
	flag.Parse()
	made.tags = tags
	code := m.Run()
	if made.world != nil {
		if err := made.world.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// needs skips, or fails, where hosts cannot be run.
func needs(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Lacking(t, "hosts need root")
	}
	need.Programs(t, append(hosts.Programs, "ssh", "ssh-keygen", "openssl")...)
}

// Build makes a world for one test alone.
func Build(t *testing.T, tags string) *World {
	t.Helper()
	needs(t)
	w, err := New(tags)
	if w != nil {
		t.Cleanup(func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Here gives the world, or skips where hosts cannot be run.
func Here(t *testing.T) *World {
	t.Helper()
	needs(t)
	made.Do(func() { made.world, made.err = New(made.tags) })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.world
}

// Packages builds both of a version and gives the .debs.
func (w *World) Packages(version, tags string) ([]string, error) {
	dist := filepath.Join(w.Dir, "dist-"+version)
	cmd := exec.Command("packaging/build")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "VERSION="+version, "TAGS="+tags, "DIST="+dist, "BUILD="+w.Path("package"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the packages: %w\n%s", err, out)
	}
	var debs []string
	for _, name := range []string{"signerd", "signerd-first-boot"} {
		found, err := filepath.Glob(filepath.Join(dist, name+"_*.deb"))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("the packages of %s are %v: %w", name, found, err)
		}
		debs = append(debs, found[0])
	}
	return debs, nil
}

// Install puts packages onto a host.
func (w *World) Install(name string, debs ...string) error {
	args := []string{"dpkg", "--install"}
	for _, deb := range debs {
		if err := w.Bed.Push(name, deb, "/var/tmp/"+filepath.Base(deb)); err != nil {
			return err
		}
		args = append(args, "/var/tmp/"+filepath.Base(deb))
	}
	_, err := w.Bed.Exec(name, args...)
	return err
}

func (w *World) makeBare() error {
	etcd, err := lab.BuildEtcd(lab.EtcdVersions[0])
	if err != nil {
		return err
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", w.Path("operator")).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := w.Bed.New("bare", 99, ""); err != nil {
		return err
	}
	err = errors.Join(
		w.Bed.Push("bare", etcd.Server, "/usr/local/bin/etcd"),
		w.Bed.Push("bare", etcd.Ctl, "/usr/local/bin/etcdctl"),
		w.Bed.Push("bare", w.Path("operator"), "/root/.ssh/id_ed25519"),
		w.Bed.Push("bare", w.Path("operator.pub"), "/root/.ssh/authorized_keys"),
		w.Install("bare", w.Debs...))
	if err != nil {
		return err
	}
	// signerd is to have port 22: the runbook moves sshd.
	if _, err := w.Bed.Exec("bare", "sh", "-c", "systemctl -q disable --now ssh && rm /var/tmp/*.deb && sync"); err != nil {
		return err
	}
	return errors.Join(w.Bed.Image("bare", w.Bare), w.Bed.Remove("bare"))
}

func (w *World) makeSigner() error {
	if err := w.Bed.New("h1", 11, w.Bare); err != nil {
		return err
	}
	if _, err := w.Bed.Exec("h1", Setup, "init", "--cluster="+Cluster); err != nil {
		return err
	}
	return errors.Join(w.Bed.Image("h1", w.Signer), w.Bed.Remove("h1"))
}

// Path gives the path of a file of the world, on this machine.
func (w *World) Path(name string) string { return filepath.Join(w.Dir, name) }

// Machine boots a host that ends with the test. Where the test failed its
// journal is shown.
func (w *World) Machine(t *testing.T, name string, n int, image string) {
	t.Helper()
	if err := w.Bed.New(name, n, image); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			own, _ := w.Bed.Enter(name, "tail", "-n", "30", "/var/log/signerd-first-boot.log") // it may be off
			t.Logf("%s:\n%s\n%s\n%s", name, own, w.Bed.Logs(name, "-n", "40", "-o", "short-precise", "-u", "signerd-sync", "-u", "signerd"), w.Bed.Logs(name, "-n", "20", "-o", "short-precise", "-g", `"level":"(error|fatal)"|panic: `))
		}
		if err := w.Bed.Remove(name); err != nil && !strings.Contains(err.Error(), "no host") {
			t.Error(err)
		}
	})
}

// On runs a program on a host and must succeed.
func (w *World) On(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := w.Bed.Exec(name, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Fingerprint gives that of the signer's host key.
func (w *World) Fingerprint(t *testing.T) string {
	t.Helper()
	return strings.Fields(w.On(t, "h1", "ssh-keygen", "-lf", "/etc/signerd/ssh_host_ed25519_key.pub"))[1]
}

// Join is the command line of a join.
func (w *World) Join(t *testing.T, more ...string) []string {
	t.Helper()
	return append([]string{Setup, "join", "--signer-ip=" + w.Bed.Address(11), "--signer-fingerprint=" + w.Fingerprint(t)}, more...)
}

// KnownHosts gives a file with the signer's host key.
func (w *World) KnownHosts(t *testing.T) string {
	t.Helper()
	key := strings.Fields(w.On(t, "h1", "cat", "/etc/signerd/ssh_host_ed25519_key.pub"))
	known := filepath.Join(t.TempDir(), "known_hosts")
	Write(t, known, w.Bed.Address(11)+" "+key[0]+" "+key[1]+"\n")
	return known
}

// SSH asks the signer from outside, with the stock client on port 22.
func (w *World) SSH(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("ssh", append([]string{"-F", "none", "-i", w.Path("operator"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + w.KnownHosts(t), "-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=3", "signer@" + w.Bed.Address(11)}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ssh %v: %w: %s", args, err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// Client gets a client's certificate as the runbook does, and gives what etcd is
// met with.
func (w *World) Client(t *testing.T, name string) (*tls.Config, string) {
	t.Helper()
	dir := t.TempDir()
	key, csr, crt := filepath.Join(dir, "client.key"), filepath.Join(dir, "client.csr"), filepath.Join(dir, "client.crt")
	for _, args := range [][]string{
		{"genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key},
		{"req", "-new", "-key", key, "-subj", "/CN=" + name, "-out", csr},
	} {
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	request, err := os.ReadFile(csr)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := w.SSH(t, string(request), name)
	if err != nil {
		t.Fatal(err)
	}
	Write(t, crt, chain)
	bundle, err := w.SSH(t, "", "get-certificate")
	if err != nil {
		t.Fatal(err)
	}
	Write(t, filepath.Join(dir, "ca.crt"), bundle)
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, dir
}

// Ctl runs etcdctl on a host against its own member.
func (w *World) Ctl(name string, args ...string) (string, error) {
	return w.Bed.Exec(name, append([]string{"etcdctl", "--endpoints=https://127.0.0.1:2379", "--cacert=/etc/etcd/pki/ca.crt",
		"--cert=/etc/etcd/pki/member.crt", "--key=/etc/etcd/pki/member.key", "--command-timeout=3s"}, args...)...)
}

// Members gives the names of those that vote, and of those that do not.
func (w *World) Members(t *testing.T, name string) (voters, others []string) {
	t.Helper()
	for line := range strings.Lines(w.List(t, name)) {
		field := strings.Split(strings.TrimSpace(line), ", ")
		if field[1] == "started" && field[5] == "false" {
			voters = append(voters, field[2])
		} else {
			others = append(others, line)
		}
	}
	return voters, others
}

// List gives what etcdctl member list prints on a host.
func (w *World) List(t *testing.T, name string) string {
	t.Helper()
	var out string
	Eventually(t, time.Minute, "etcd on "+name+" lists its members", func() (err error) {
		out, err = w.Ctl(name, "member", "list")
		return err
	})
	return out
}

// Write puts a text into a file on this machine.
func Write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Eventually polls until something succeeds.
func Eventually(t *testing.T, atMost time.Duration, what string, try func() error) {
	t.Helper()
	if err := Retry(atMost, 100*time.Millisecond, try); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Retry tries until something succeeds, with a pause between; the error is the last one.
func Retry(atMost, pause time.Duration, try func() error) error {
	for deadline := time.Now().Add(atMost); ; <-time.After(pause) {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not after %s: %w", atMost, err)
		}
	}
}
