package sshfront

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	gliderlabs "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/need"
	"github.com/signerd/signerd/internal/wire"
)

// target is a server that a trap is tried on.
type target struct {
	address string
	trapped bool // as it should be
}

func (g target) port() string {
	_, port, _ := net.SplitHostPort(g.address)
	return port
}

// expect says whether the trap may have caught.
func (g target) expect(t *testing.T, caught bool, detail ...any) {
	t.Helper()
	if caught != g.trapped {
		t.Errorf("caught: %v, want %v: %v", caught, g.trapped, detail)
	}
}

// expectRole says whose rights a user may have that offered an admin's key.
func (g target) expectRole(t *testing.T, client, role string, err error) {
	t.Helper()
	want := "user"
	if g.trapped {
		want = "admin"
	}
	if err != nil || role != want {
		t.Errorf("%s: in as %q, %v; want %q", client, role, err, want)
	}
}

// dial logs in with keys, as user if that is not empty.
func (g target) dial(user string, keys ...ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", g.address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
	})
}

// spring tries a trap on both servers.
func spring(t *testing.T, defaults *gliderlabs.Server, ours *testServer, try func(*testing.T, target)) {
	t.Run("defaults", func(t *testing.T) {
		try(t, start(t, defaults))
	})
	t.Run("signerd", func(t *testing.T) { try(t, target{ours.address, false}) })
}

// open starts a server with the defaults that lets every key in. What it is not
// to leave to the defaults is set in s.
func open(t *testing.T, s *gliderlabs.Server) target {
	t.Helper()
	s.PublicKeyHandler = anyKey
	if s.Handler == nil {
		s.Handler = func(gliderlabs.Session) {}
	}
	return start(t, s)
}

// start starts a server that is trapped.
func start(t *testing.T, s *gliderlabs.Server) target {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(func() { _ = s.Close() })
	return target{listener.Addr().String(), true}
}

// anyKey lets everybody in who has a key.
func anyKey(gliderlabs.Context, gliderlabs.PublicKey) bool { return true }

// roles is a Gate: the names of the keys that it admits.
type roles map[string]role

func (r roles) Admit(l Login) (*Admission, error) {
	if name, ok := r[string(l.Key.Marshal())]; ok {
		return &Admission{Caller: name}, nil
	}
	return nil, errors.New("another key")
}

// role answers every command with its name.
type role string

func (r role) Call(context.Context, string, Stdin) (wire.Answer, error) {
	return wire.Answer{Output: []byte(r)}, nil
}

func (r role) String() string { return string(r) }

// keyFile makes a key and writes it as ssh-keygen does.
func keyFile(t *testing.T, name string) (string, ssh.Signer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	private, signer := newPrivateKey()
	if err := errors.Join(os.WriteFile(path, pem.EncodeToMemory(must(ssh.MarshalPrivateKey(private, name))), 0o600),
		os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path, signer
}

// openSSH runs "whoami" with the stock client and gives what it printed.
func openSSH(t *testing.T, g target, args ...string) (string, error) {
	t.Helper()
	need.Programs(t, "ssh")
	cmd := exec.Command("ssh", slices.Concat([]string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
		"-o", "IdentityAgent=none", "-p", g.port(),
	}, args, []string{"127.0.0.1", "whoami"})...)
	out, err := cmd.Output()
	return string(out), err
}

// libSSH does the same with testdata/login.c.
func libSSH(t *testing.T, g target, trap, listed, other string) (string, error) {
	t.Helper()
	out, err := exec.Command(buildLogin(t), trap, g.port(), listed, other).Output()
	return string(out), err
}

// buildLogin builds testdata/login.c.
func buildLogin(t *testing.T) string {
	t.Helper()
	need.Programs(t, "cc")
	if _, err := os.Stat("/usr/include/libssh/libssh.h"); err != nil {
		need.Lacking(t, "libssh-dev is missing")
	}
	program := filepath.Join(t.TempDir(), "login")
	if out, err := exec.Command("cc", "-Wall", "-Werror", "-o", program, "testdata/login.c", "-lssh").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}
