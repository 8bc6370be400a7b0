package sshfront

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func newKey() ssh.Signer {
	_, signer := newPrivateKey()
	return signer
}

func newPrivateKey() (ed25519.PrivateKey, ssh.Signer) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key, must(ssh.NewSignerFromKey(key))
}

// testGate admits one key, as a caller that does what the command says.
type testGate struct {
	key      ssh.PublicKey
	finish   chan struct{} // "wait" ends when it is closed
	started  chan struct{}
	canceled chan error
	stubborn chan struct{} // "wait" does not end before, if it is set
}

func (g *testGate) Admit(l Login) (*Admission, error) {
	if !bytes.Equal(l.Key.Marshal(), g.key.Marshal()) {
		return nil, errors.New("another key")
	}
	return &Admission{Caller: g}, nil
}

func (g *testGate) String() string { return "tester" }

func (g *testGate) Call(ctx context.Context, command string, stdin Stdin) (wire.Answer, error) {
	switch command {
	case "count":
		body, err := stdin(ctx)
		if err == nil && len(body) > wire.MaxRequest {
			err = wire.Errorf(wire.BadRequest, "too long")
		}
		return wire.Answer{Output: []byte{byte(len(body) % 251)}}, err
	case "deny":
		return wire.Answer{}, wire.Errorf(wire.Denied, "no")
	case "panic":
		panic("on purpose")
	case "wait":
		g.started <- struct{}{}
		if g.stubborn != nil {
			<-g.stubborn
		}
		select {
		case <-g.finish:
			return wire.Answer{Output: []byte("done")}, nil
		case <-ctx.Done():
			g.canceled <- ctx.Err()
			return wire.Answer{}, ctx.Err()
		}
	case "much":
		return wire.Answer{Output: bytes.Repeat([]byte("x"), 4<<20)}, nil
	}
	return wire.Answer{Output: []byte("<" + command + ">"), Note: "a note"}, nil
}

// testLimits are like those that are in force by default.
func testLimits() Limits {
	return Limits{
		LoginGrace: 10 * time.Second, ConnectionLife: 2 * time.Minute, Idle: 30 * time.Second, Unused: 20 * time.Second,
		Exec: 5 * time.Second, Command: 20 * time.Second, Linger: time.Second,
		Connections: 128, Unauthenticated: 64, PerSource: 16, PerSourceUnauth: 8, PerSourcePerSecond: 10,
		Sessions: 4, SessionsPerConnection: 64, RequestsPerSession: 32,
	}
}

type testServer struct {
	*Server
	gate    *testGate
	key     ssh.Signer
	address string
	log     *lockedBuffer
	served  chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newServer(t *testing.T, change func(*Limits)) *testServer {
	t.Helper()
	return newServerWith(t, Compatible, change)
}

func newServerWith(t *testing.T, profile Profile, change func(*Limits)) *testServer {
	t.Helper()
	key := newKey()
	gate := &testGate{key: key.PublicKey(), finish: make(chan struct{}), started: make(chan struct{}, 100), canceled: make(chan error, 100)}
	s := serveGate(t, profile, change, gate)
	s.key, s.gate = key, gate
	return s
}

// serveGate starts a server on loopback.
func serveGate(t *testing.T, profile Profile, change func(*Limits), gate Gate) *testServer {
	t.Helper()
	limits := testLimits()
	limits.PerSourcePerSecond = 10000
	if change != nil {
		change(&limits)
	}
	s := &testServer{log: &lockedBuffer{}, served: make(chan error, 1)}
	s.Server = must(New(Options{HostKey: newKey(), Profile: profile, Limits: limits, Gate: gate, Log: zerolog.New(s.log)}))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	s.address = listener.Addr().String()
	go func() { s.served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

func (s *testServer) openSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.conns {
		c.mu.Lock()
		n += c.sessions
		c.mu.Unlock()
	}
	return n
}

func (s *testServer) dial(t *testing.T) *ssh.Client {
	t.Helper()
	client, err := s.tryDial(wire.User, s.key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (s *testServer) tryDial(user string, keys ...ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", s.address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
	})
}

func run(t *testing.T, client *ssh.Client, command string, stdin io.Reader) (stdout, stderr string, status int) {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var out, errs bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = stdin, &out, &errs
	err = session.Run(command)
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitStatus()
	}
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out.String(), errs.String(), 0
}
