// Package firstboot tests first-boot and the packages on real hosts: systemd,
// the stock ssh, power cuts.
package firstboot

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

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

// world is what all tests share: packages, and the disks that hosts begin with.
type world struct {
	bed    *hosts.Bed
	dir    string
	debs   []string // with crash points
	bare   string   // a disk with the packages, etcd and an SSH key that may do everything
	signer string   // the same after first-boot init as h1
}

// The machine that signs, and its member.
const (
	cluster = "prod-a"
	setup   = "/root/setup/first-boot.sh"
)

var makeWorld = sync.OnceValues(func() (*world, error) {
	dir, err := os.MkdirTemp("", "signerd-firstboot-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, bare: filepath.Join(dir, "bare.img"), signer: filepath.Join(dir, "signer.img")}
	if w.bed, err = hosts.New(10 + os.Getpid()%200); err != nil {
		return w, err
	}
	if w.debs, err = w.packages("1.0.0", "grpcnotrace crashpoints shortlives"); err != nil {
		return w, err
	}
	if err := w.makeBare(); err != nil {
		return w, fmt.Errorf("making a machine to begin with: %w", err)
	}
	return w, w.makeSigner()
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if w, _ := makeWorld(); w != nil {
		if w.bed != nil {
			if err := w.bed.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
		_ = os.RemoveAll(w.dir)
	}
	os.Exit(code)
}

// here gives the world, or skips where hosts cannot be run.
func here(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Lacking(t, "hosts need root")
	}
	need.Programs(t, append(hosts.Programs, "ssh", "ssh-keygen", "openssl")...)
	w, err := makeWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// packages builds both of a version and gives the .debs.
func (w *world) packages(version, tags string) ([]string, error) {
	dist := filepath.Join(w.dir, "dist-"+version)
	cmd := exec.Command("packaging/build")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "VERSION="+version, "TAGS="+tags, "DIST="+dist, "BUILD="+w.path("package"))
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

// install puts packages onto a host.
func (w *world) install(name string, debs ...string) error {
	args := []string{"dpkg", "--install"}
	for _, deb := range debs {
		if err := w.bed.Push(name, deb, "/var/tmp/"+filepath.Base(deb)); err != nil {
			return err
		}
		args = append(args, "/var/tmp/"+filepath.Base(deb))
	}
	_, err := w.bed.Exec(name, args...)
	return err
}

func (w *world) makeBare() error {
	etcd, err := lab.BuildEtcd(lab.EtcdVersions[0])
	if err != nil {
		return err
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", w.path("operator")).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := w.bed.New("bare", 99, ""); err != nil {
		return err
	}
	err = errors.Join(
		w.bed.Push("bare", etcd.Server, "/usr/local/bin/etcd"),
		w.bed.Push("bare", etcd.Ctl, "/usr/local/bin/etcdctl"),
		w.bed.Push("bare", w.path("operator"), "/root/.ssh/id_ed25519"),
		w.bed.Push("bare", w.path("operator.pub"), "/root/.ssh/authorized_keys"),
		w.install("bare", w.debs...))
	if err != nil {
		return err
	}
	// signerd is to have port 22: the runbook moves sshd.
	if _, err := w.bed.Exec("bare", "sh", "-c", "systemctl -q disable --now ssh && rm /var/tmp/*.deb && sync"); err != nil {
		return err
	}
	return errors.Join(w.bed.Image("bare", w.bare), w.bed.Remove("bare"))
}

func (w *world) makeSigner() error {
	if err := w.bed.New("h1", 11, w.bare); err != nil {
		return err
	}
	if _, err := w.bed.Exec("h1", setup, "init", "--cluster="+cluster); err != nil {
		return err
	}
	return errors.Join(w.bed.Image("h1", w.signer), w.bed.Remove("h1"))
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// machine boots a host that ends with the test. Where the test failed its
// journal is shown.
func (w *world) machine(t *testing.T, name string, n int, image string) {
	t.Helper()
	if err := w.bed.New(name, n, image); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			own, _ := w.bed.Enter(name, "tail", "-n", "30", "/var/log/signerd-first-boot.log") // it may be off
			t.Logf("%s:\n%s\n%s", name, own, w.bed.Logs(name, "-n", "20", "-o", "short-precise", "-g", `"level":"(error|fatal)"|panic: `))
		}
		if err := w.bed.Remove(name); err != nil && !strings.Contains(err.Error(), "no host") {
			t.Error(err)
		}
	})
}

// on runs a program on a host and must succeed.
func (w *world) on(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := w.bed.Exec(name, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// fingerprint gives that of the signer's host key.
func (w *world) fingerprint(t *testing.T) string {
	t.Helper()
	return strings.Fields(w.on(t, "h1", "ssh-keygen", "-lf", "/etc/signerd/ssh_host_ed25519_key.pub"))[1]
}

// join is the command line of a join.
func (w *world) join(t *testing.T, more ...string) []string {
	t.Helper()
	return append([]string{setup, "join", "--signer-ip=" + w.bed.Address(11), "--signer-fingerprint=" + w.fingerprint(t)}, more...)
}

// ssh asks the signer from outside, with the stock client on port 22.
func (w *world) ssh(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	key := strings.Fields(w.on(t, "h1", "cat", "/etc/signerd/ssh_host_ed25519_key.pub"))
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, w.bed.Address(11)+" "+key[0]+" "+key[1]+"\n")
	cmd := exec.Command("ssh", append([]string{"-F", "none", "-i", w.path("operator"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + known, "-o", "ConnectTimeout=5", "signer@" + w.bed.Address(11)}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ssh %v: %w: %s", args, err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// client gets a client's certificate as the runbook does, and gives what etcd is
// met with.
func (w *world) client(t *testing.T, name string) (*tls.Config, string) {
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
	chain, err := w.ssh(t, string(request), name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, crt, chain)
	bundle, err := w.ssh(t, "", "get-certificate")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.crt"), bundle)
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, dir
}

// ctl runs etcdctl on a host against its own member.
func (w *world) ctl(name string, args ...string) (string, error) {
	return w.bed.Exec(name, append([]string{"etcdctl", "--endpoints=https://127.0.0.1:2379", "--cacert=/etc/etcd/pki/ca.crt",
		"--cert=/etc/etcd/pki/member.crt", "--key=/etc/etcd/pki/member.key", "--command-timeout=3s"}, args...)...)
}

// members gives the names of those that vote, and of those that do not.
func (w *world) members(t *testing.T, name string) (voters, others []string) {
	t.Helper()
	for line := range strings.Lines(w.list(t, name)) {
		field := strings.Split(strings.TrimSpace(line), ", ")
		if field[1] == "started" && field[5] == "false" {
			voters = append(voters, field[2])
		} else {
			others = append(others, line)
		}
	}
	return voters, others
}

func (w *world) list(t *testing.T, name string) string {
	t.Helper()
	var out string
	eventually(t, time.Minute, "etcd on "+name+" lists its members", func() (err error) {
		out, err = w.ctl(name, "member", "list")
		return err
	})
	return out
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until something succeeds.
func eventually(t *testing.T, atMost time.Duration, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(atMost); ; <-time.After(100 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s: %v", what, atMost, err)
		}
	}
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}
