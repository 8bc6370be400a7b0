package commands

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// bench is a signer behind a real SSH server, with an etcd that is never there.
type bench struct {
	t       testing.TB
	desk    *Desk
	address string
	ahead   atomic.Int64 // of the clock, in nanoseconds
	log     *bytes.Buffer
	limits  sshfront.Limits
}

func newBench(t testing.TB, lines ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	must(signer.CreateAuthority(filepath.Join(dir, "authority"), "prod-a", "p256", time.Now()))
	authority := must(signer.LoadAuthority(filepath.Join(dir, "authority"), time.Now()))
	s, _, err := signer.Open(signer.Parts{Cluster: "prod-a", Identity: signer.DefaultIdentity("prod-a"), Authority: authority, Ledger: filepath.Join(dir, "ledger")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Authority().Bundle())
	cluster := must(peers.Connect([]string{"https://127.0.0.1:1"}, peers.Credentials{Roots: func() *x509.CertPool { return roots }, Certificate: s.Self(time.Now).Certificate}))
	b := &bench{t: t, log: &bytes.Buffer{}, limits: sshfront.Limits(config.DefaultLimits().Front)}
	b.limits.PerSourcePerSecond = 10000
	b.desk = New(s, signer.Clients{must(wire.ParseGlob("kubemaster-*"))}, cluster, nil)
	b.desk.now = func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }
	b.authorize(lines...)
	front := must(sshfront.New(sshfront.Options{
		HostKey: newKey(t), Profile: sshfront.Compatible, Limits: b.limits, Gate: b.desk, Log: zerolog.New(zerolog.SyncWriter(b.log)),
	}))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	b.address = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- front.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(front.Shutdown(t.Context()), <-served, cluster.Close(), s.Close()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) authorize(lines ...string) {
	b.desk.SetKeys(must(authkeys.Parse("authorized_keys", []byte(strings.Join(lines, "\n")))))
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return must(ssh.NewSignerFromKey(key))
}

func line(options string, key ssh.Signer) string {
	return strings.TrimSpace(options + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))))
}

func (b *bench) dial(user string, keys ...ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", b.address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
	})
}

type answer struct {
	stdout, stderr string
	status         int
}

func (b *bench) ask(key ssh.Signer, command, stdin string) answer {
	b.t.Helper()
	client, err := b.dial("signer", key)
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	defer client.Close()
	return askOn(b.t, client, command, stdin)
}

func askOn(t testing.TB, client *ssh.Client, command, stdin string) answer {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	defer session.Close()
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if command == "" {
		if err = session.Shell(); err == nil {
			err = session.Wait()
		}
	} else {
		err = session.Run(command)
	}
	a := answer{stdout.String(), stderr.String(), 0}
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		a.status = exit.ExitStatus()
	} else if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if a.status != 0 && a.stdout != "" {
		t.Errorf("%s: status %d with stdout %q", command, a.status, a.stdout)
	}
	if a.status != 0 && strings.TrimSpace(command) != "" && strings.Count(a.stderr, "\n") != 1 {
		t.Errorf("%s: stderr is not one line: %q", command, a.stderr)
	}
	return a
}

func request(key crypto.Signer) string {
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func newCertKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }
