package sshfront

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
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
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return must(ssh.NewSignerFromKey(key))
}

// testGate admits one key, as a caller that does what the command says.
type testGate struct {
	key      ssh.PublicKey
	finish   chan struct{} // "wait" ends when it is closed
	started  chan struct{}
	canceled chan error
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
	limits := testLimits()
	limits.PerSourcePerSecond = 10000
	if change != nil {
		change(&limits)
	}
	s := &testServer{key: newKey(), log: &lockedBuffer{}, served: make(chan error, 1)}
	s.gate = &testGate{key: s.key.PublicKey(), finish: make(chan struct{}), started: make(chan struct{}, 100), canceled: make(chan error, 100)}
	s.Server = must(New(Options{HostKey: newKey(), Profile: profile, Limits: limits, Gate: s.gate, Log: zerolog.New(s.log)}))
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

func TestAnswers(t *testing.T) {
	s := newServer(t, nil)
	client := s.dial(t)
	for _, test := range []struct {
		command, stdin, stdout, stderr string
		status                         int
	}{
		{"x y", "", "<x y>", "a note\n", 0},
		{"deny", "", "", "signerd: no\n", 77},
		{"panic", "", "", "signerd: internal error; the signer's journal says more\n", 70},
		{"count", strings.Repeat("a", 300), string([]byte{300 - 251}), "", 0},
	} {
		stdout, stderr, status := run(t, client, test.command, strings.NewReader(test.stdin))
		if status != test.status || stdout != test.stdout || !strings.HasPrefix(stderr, test.stderr) {
			t.Errorf("%s: %q, %q, %d", test.command, stdout, stderr, status)
		}
	}
	if !strings.Contains(s.log.String(), "on purpose") || !strings.Contains(s.log.String(), "sshfront_test.go") {
		t.Error("the journal does not say where it panicked")
	}
	if stdout, _, status := run(t, client, "much", nil); len(stdout) != 4<<20 || status != 0 {
		t.Errorf("of 4 MiB %d bytes came, status %d", len(stdout), status)
	}
}

// An answer that comes while the client still sends reaches it, and its pipe
// does not break.
func TestEarlyAnswer(t *testing.T) {
	s := newServer(t, nil)
	client := s.dial(t)
	for _, command := range []string{"deny", "count"} {
		stdin := bytes.NewReader(make([]byte, 4<<20))
		_, _, status := run(t, client, command, stdin)
		if want := map[string]int{"deny": 77, "count": 3}[command]; status != want || stdin.Len() != 0 {
			t.Errorf("%s: status %d, want %d; %d bytes were not taken", command, status, want, stdin.Len())
		}
	}
	// A terminal that sends nothing does not wait for the time to linger.
	begun := time.Now()
	reader, writer := io.Pipe()
	defer writer.Close()
	session := must(client.NewSession())
	session.Stdin = reader
	if err := session.Start("x"); err != nil {
		t.Fatal(err)
	}
	go func() { _ = session.Wait() }()
	for s.openSessions() > 0 {
		if time.Since(begun) > 900*time.Millisecond {
			t.Fatal("the session lingers for a client that sent nothing")
		}
		<-time.After(time.Millisecond)
	}
}

// Nothing but a command is given: everything else is refused, and a command on
// the same session still runs.
func TestOnlyCommands(t *testing.T) {
	s := newServer(t, nil)
	client := s.dial(t)
	session := must(client.NewSession())
	for _, request := range []string{"pty-req", "env", "x11-req", "auth-agent-req@openssh.com", "subsystem", "window-change", "signal", "break"} {
		if ok, err := session.SendRequest(request, true, ssh.Marshal(struct{ Name, Value string }{"sftp", "x"})); ok || err != nil {
			t.Errorf("%s: granted %v, %v", request, ok, err)
		}
	}
	if ok, err := session.SendRequest("exec", true, []byte{0, 0, 0, 9, 'x'}); ok || err != nil {
		t.Errorf("an exec request that does not parse: granted %v, %v", ok, err)
	}
	if out, err := session.Output("help"); err != nil || string(out) != "<help>" {
		t.Errorf("after the refusals: %q, %v", out, err)
	}
	for _, kind := range []string{"direct-tcpip", "forwarded-tcpip", "x11", "tun@openssh.com", "nonsense"} {
		_, _, err := client.OpenChannel(kind, nil)
		if e, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || e.Reason != ssh.Prohibited {
			t.Errorf("a channel %s: %v", kind, err)
		}
	}
	for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "keepalive@openssh.com"} {
		if ok, _, err := client.SendRequest(kind, true, nil); ok || err != nil {
			t.Errorf("a request %s: granted %v, %v", kind, ok, err)
		}
	}
	second := must(client.NewSession())
	if ok, err := second.SendRequest("exec", true, ssh.Marshal(struct{ C string }{"x"})); !ok || err != nil {
		t.Errorf("the first command: granted %v, %v", ok, err)
	}
	if ok, _ := second.SendRequest("exec", true, ssh.Marshal(struct{ C string }{"y"})); ok {
		t.Error("a second command on one session is granted")
	}
}

// Nobody gets in without the key, as another user, or with a key that was only
// offered.
func TestLogin(t *testing.T) {
	s := newServer(t, nil)
	other := newKey()
	for what, try := range map[string]func() (*ssh.Client, error){
		"no key": func() (*ssh.Client, error) {
			return ssh.Dial("tcp", s.address, &ssh.ClientConfig{User: wire.User, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		},
		"another key":  func() (*ssh.Client, error) { return s.tryDial(wire.User, other) },
		"another user": func() (*ssh.Client, error) { return s.tryDial("root", s.key) },
		"a password": func() (*ssh.Client, error) {
			return ssh.Dial("tcp", s.address, &ssh.ClientConfig{User: wire.User, Auth: []ssh.AuthMethod{ssh.Password("")}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		},
		"a key that does not sign": func() (*ssh.Client, error) { return s.tryDial(wire.User, offered{s.key, other}, other) },
	} {
		if client, err := try(); err == nil {
			_ = client.Close()
			t.Errorf("%s: let in", what)
		}
	}
	client, err := s.tryDial(wire.User, other, s.key)
	if err != nil {
		t.Fatalf("the right key after another: %v", err)
	}
	_ = client.Close()
}

// offered shows one key and signs with another.
type offered struct {
	ssh.Signer
	signs ssh.Signer
}

func (o offered) Sign(r io.Reader, data []byte) (*ssh.Signature, error) { return o.signs.Sign(r, data) }

// Connections end: before login after the grace, whatever trickles in; logged
// in and unused; and at the end of their life.
func TestDeadlines(t *testing.T) {
	s := newServer(t, func(l *Limits) {
		l.LoginGrace, l.Unused, l.ConnectionLife, l.Exec = 300*time.Millisecond, 300*time.Millisecond, 1200*time.Millisecond, 300*time.Millisecond
	})
	ended := func(what string, c net.Conn, after, atMost time.Duration) {
		begun := time.Now()
		_ = c.SetReadDeadline(begun.Add(5 * time.Second))
		_, err := io.Copy(io.Discard, c)
		if took := time.Since(begun); took < after || took > atMost || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: ended after %s, %v", what, took, err)
		}
	}
	ended("silent", must(net.Dial("tcp", s.address)), 200*time.Millisecond, 900*time.Millisecond)
	drip := must(net.Dial("tcp", s.address))
	go func() {
		for {
			if _, err := drip.Write([]byte("S")); err != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	}()
	ended("byte drip", drip, 200*time.Millisecond, 900*time.Millisecond)

	waited := func(what string, client *ssh.Client, after, atMost time.Duration) {
		begun := time.Now()
		_ = client.Wait()
		if took := time.Since(begun); took < after || took > atMost {
			t.Errorf("%s: ended after %s", what, took)
		}
	}
	waited("unused", s.dial(t), 200*time.Millisecond, 900*time.Millisecond)
	busy := s.dial(t)
	go func() { _ = must(busy.NewSession()).Run("wait") }()
	waited("at work", busy, 900*time.Millisecond, 2500*time.Millisecond)
	if err := <-s.gate.canceled; !errors.Is(err, context.Canceled) {
		t.Errorf("the command of a connection that ended: %v", err)
	}
	// A session without a command is closed, and its connection goes on.
	client := s.dial(t)
	idle, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a session without a command: %v", err)
	}
	if stdout, _, _ := run(t, client, "x", nil); stdout != "<x>" {
		t.Errorf("after it: %q", stdout)
	}
}

// A connection without a byte either way ends, whatever it is for.
func TestIdle(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.Idle = 300 * time.Millisecond })
	client := s.dial(t)
	go func() { _ = must(client.NewSession()).Run("wait") }()
	<-s.gate.started
	begun := time.Now()
	_ = client.Wait()
	if took := time.Since(begun); took < 200*time.Millisecond || took > 2*time.Second {
		t.Errorf("an idle connection ended after %s", took)
	}
}

// The profiles differ in the key exchange, and neither takes what is weak.
func TestHandshakes(t *testing.T) {
	servers := map[Profile]*testServer{Compatible: newServer(t, nil), Strict: newServerWith(t, Strict, nil)}
	for _, test := range []struct {
		what               string
		config             ssh.Config
		compatible, strict bool
	}{
		{"a client of today", ssh.Config{}, true, true},
		{"curve25519", ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}}, true, false},
		{"group14 with SHA-1", ssh.Config{KeyExchanges: []string{ssh.InsecureKeyExchangeDH14SHA1}}, false, false},
		{"nistp256", ssh.Config{KeyExchanges: []string{ssh.KeyExchangeECDHP256}}, false, false},
		{"CBC", ssh.Config{Ciphers: []string{ssh.InsecureCipherAES128CBC}}, false, false},
		{"CTR with an encrypt-and-MAC", ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.HMACSHA256}}, false, false},
		{"CTR with encrypt-then-MAC", ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.HMACSHA256ETM}}, true, true},
		{"chacha20", ssh.Config{Ciphers: []string{ssh.CipherChaCha20Poly1305}}, true, false},
	} {
		for profile, want := range map[Profile]bool{Compatible: test.compatible, Strict: test.strict} {
			s := servers[profile]
			client, err := ssh.Dial("tcp", s.address, &ssh.ClientConfig{
				Config: test.config, User: wire.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(s.key)},
				HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
			})
			if err == nil {
				_ = client.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s, %s: %v; want %v", profile, test.what, err, want)
			}
		}
	}
}

// The limits for one source, IPv6 hosts counting as their /64, and in all.
func TestGuard(t *testing.T) {
	limits := testLimits()
	limits.Connections, limits.Unauthenticated, limits.PerSource, limits.PerSourceUnauth, limits.PerSourcePerSecond = 6, 5, 3, 2, 1000
	limits.Exempt = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	g := must(newGuard(limits))
	admit := func(source string, want error) *ticket {
		t.Helper()
		ticket, err := g.admit(netip.MustParseAddr(source))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", source, err, want)
		}
		return ticket
	}
	a := admit("10.0.0.1", nil)
	b := admit("10.0.0.1", nil)
	admit("10.0.0.1", errSourceUnauth)
	a.loggedIn()
	b.loggedIn()
	c := admit("10.0.0.1", nil)
	admit("10.0.0.1", errSourceFull)
	c.end()
	c.end() // once counts
	admit("10.0.0.1", nil)
	admit("fd00::1", nil)
	admit("fd00::2", nil)
	admit("fd00::3", errSourceUnauth) // the same /64
	admit("fd00:0:0:1::1", nil)
	admit("192.168.0.1", errFull)
	a.end()
	admit("192.168.0.1", nil)
	b.end()
	admit("192.168.0.1", errUnauthFull)

	// Many sources do not make the counts of one with open connections forgotten.
	limits = testLimits()
	limits.PerSource = 1
	g = must(newGuard(limits))
	kept := admit("10.0.0.1", nil)
	for i := range 2 * maxSources {
		admit(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}).String(), nil).end()
	}
	admit("10.0.0.1", errSourceFull)
	kept.end()

	limits = testLimits()
	limits.PerSourcePerSecond = 3
	g = must(newGuard(limits))
	for range 3 {
		admit("10.0.0.1", nil).end()
	}
	admit("10.0.0.1", errSourceFast)
	admit("10.0.0.2", nil)
}

func TestFilesForTheLimits(t *testing.T) {
	limits := testLimits()
	if err := limits.checkFiles(); err != nil {
		t.Error(err)
	}
	limits.Connections = 1 << 40
	if err := limits.checkFiles(); err == nil || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("more connections than files: %v", err)
	}
}

func TestRefusedConnectionsAreClosed(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.PerSourcePerSecond = 2 })
	for i := range 4 {
		c := must(net.Dial("tcp", s.address))
		defer c.Close()
		n, err := c.Read(make([]byte, 100))
		if (n > 0) != (i < 2) {
			t.Errorf("connection %d: %d bytes, %v", i, n, err)
		}
	}
	if !strings.Contains(s.log.String(), errSourceFast.Error()) {
		t.Errorf("the log is %s", s.log)
	}
}

func TestSessionLimits(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.SessionsPerConnection, l.RequestsPerSession = 6, 5 })
	client := s.dial(t)
	var open []*ssh.Session
	for range 4 {
		open = append(open, must(client.NewSession()))
	}
	if _, err := client.NewSession(); err == nil {
		t.Error("a fifth session at once is granted")
	}
	for _, session := range open {
		_ = session.Close()
	}
	for deadline := time.Now().Add(5 * time.Second); s.openSessions() > 0 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	for range 2 {
		if stdout, _, _ := run(t, client, "x", nil); stdout != "<x>" {
			t.Errorf("after closing: %q", stdout)
		}
	}
	if _, err := client.NewSession(); err == nil {
		t.Error("a seventh session in all is granted")
	}
	flood := must(s.dial(t).NewSession())
	for i := range 20 {
		if err := flood.Setenv("A", "b"); err != nil && !strings.Contains(err.Error(), "setenv failed") {
			if i < 5 {
				t.Errorf("request %d: %v", i, err)
			}
			return
		}
	}
	t.Error("20 requests on a session are answered")
}

// A shutdown refuses what is new, ends what is idle, and lets commands finish.
func TestShutdown(t *testing.T) {
	s := newServer(t, nil)
	idle, busy := s.dial(t), s.dial(t)
	session := must(busy.NewSession())
	var out bytes.Buffer
	session.Stdout = &out
	if err := session.Start("wait"); err != nil {
		t.Fatal(err)
	}
	<-s.gate.started
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	_ = idle.Wait()
	if err := <-s.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := busy.NewSession(); err == nil {
		t.Error("a new session during the shutdown is granted")
	}
	if c, err := net.Dial("tcp", s.address); err == nil {
		_ = c.Close()
		t.Error("a new connection during the shutdown is accepted")
	}
	select {
	case <-ended:
		t.Fatal("the shutdown did not wait for the command")
	default:
	}
	close(s.gate.finish)
	if err := session.Wait(); err != nil || out.String() != "done" {
		t.Errorf("the command: %q, %v", &out, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Where the time for a shutdown runs out, commands are cut off.
func TestShutdownRunsOut(t *testing.T) {
	s := newServer(t, nil)
	session := must(s.dial(t).NewSession())
	if err := session.Start("wait"); err != nil {
		t.Fatal(err)
	}
	<-s.gate.started
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-s.gate.canceled; err == nil {
		t.Error("the command was not canceled")
	}
}

// Health checks that only connect leave no line, others do.
func TestHealthChecksAreQuiet(t *testing.T) {
	for _, quiet := range []bool{true, false} {
		s := newServer(t, func(l *Limits) {
			if quiet {
				l.HealthChecks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
		})
		_ = must(net.Dial("tcp", s.address)).Close()
		_, _ = s.tryDial("nobody", s.key) // its line comes after
		deadline := time.Now().Add(5 * time.Second)
		for !strings.Contains(s.log.String(), "login denied") && time.Now().Before(deadline) {
			<-time.After(5 * time.Millisecond)
		}
		if noted := strings.Contains(s.log.String(), "went away"); noted == quiet {
			t.Errorf("quiet %v: %s", quiet, s.log)
		}
	}
}

func TestProfiles(t *testing.T) {
	for _, p := range []Profile{Compatible, Strict} {
		if err := p.check(); err != nil {
			t.Error(err)
		}
	}
	if err := Profile("lax").check(); err == nil {
		t.Error("an unknown profile passes")
	}
	for _, name := range ssh.InsecureAlgorithms().PublicKeyAuths {
		for _, ours := range signatures {
			if ours == name {
				t.Errorf("%s is among the signatures", name)
			}
		}
	}
}
