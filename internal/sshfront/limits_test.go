package sshfront

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

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

// The limits for one source, IPv6 hosts counting as their /64, and in all.
func TestGuard(t *testing.T) {
	limits := testLimits()
	limits.Connections, limits.Unauthenticated, limits.PerSource, limits.PerSourceUnauth, limits.PerSourcePerSecond = 6, 5, 3, 2, 1000
	limits.Exempt = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	g := must(newGuard(limits, 0))
	admit := func(source string, want error) *ticket {
		t.Helper()
		ticket, err := g.admit(netip.MustParseAddr(source), func() {})
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
	if g.count != (count{6, 4}) {
		t.Errorf("the counts are %v", g.count)
	}
	admit("10.0.1.1", errFull)
	a.end()
	d := admit("10.0.1.1", nil)
	b.end()
	admit("10.0.1.2", errUnauthFull)
	admit("192.168.0.1", nil) // a listed network goes first
	if g.count != (count{5, 5}) || g.leaving != 1 {
		t.Errorf("the counts are %v, and %d leave", g.count, g.leaving)
	}
	d.end()

	// Many sources do not make the counts of one with open connections forgotten.
	limits = testLimits()
	limits.PerSource = 1
	g = must(newGuard(limits, 0))
	kept := admit("10.0.0.1", nil)
	for i := range 2 * maxSources {
		admit(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}).String(), nil).end()
	}
	admit("10.0.0.1", errSourceFull)
	kept.end()

	// Nor do as many sources with open connections as the limits let in.
	limits.Connections, limits.Unauthenticated = 2*maxSources, 2*maxSources
	g = must(newGuard(limits, 0))
	for i := range 2 * maxSources {
		admit(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}).String(), nil)
	}
	admit("11.0.0.0", errSourceFull)
	admit("10.0.0.1", errFull)

	limits = testLimits()
	limits.PerSourcePerSecond = 3
	g = must(newGuard(limits, 0))
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

// Where too many wait for login a known source takes the place of one that is not, and any
// that of one that has taken its time; and no more leave than the limits let wait.
func TestRoom(t *testing.T) {
	limits := testLimits()
	limits.Connections, limits.Unauthenticated, limits.PerSource, limits.PerSourceUnauth = 100, 3, 100, 100
	g := must(newGuard(limits, 0))
	now := time.Now()
	g.now = func() time.Time { return now }
	var gone []string
	admit := func(source string) *ticket {
		t.Helper()
		ticket, err := g.admit(netip.MustParseAddr(source), func() { gone = append(gone, source) })
		if errors.Is(err, errUnauthFull) {
			gone = append(gone, "refused")
			return nil
		}
		ticket.waits()
		return ticket
	}
	expect := func(sources ...string) {
		t.Helper()
		if !slices.Equal(gone, sources) || len(g.waiting) != g.count.unauth {
			t.Errorf("%v had to go, want %v; %d wait of %d", gone, sources, len(g.waiting), g.count.unauth)
		}
		gone = nil
	}
	member := admit("10.0.0.1")
	member.loggedIn()
	member.end()
	g.know(netip.MustParseAddr("10.0.0.2"))

	offers := admit("10.0.1.1")
	offers.got(1)
	offers.offers()
	offers.waits()
	talks := admit("10.0.1.2")
	talks.got(1)
	talks.waits()
	third := admit("10.0.1.3")
	expect()
	admit("10.0.1.4")
	expect("refused") // nobody has taken its time yet
	now = now.Add(patience)
	for _, t := range []*ticket{talks, third} {
		t.got(0)
	}
	admit("10.0.1.4")
	expect("refused") // the server does not wait for them
	for _, t := range []*ticket{talks, third} {
		t.waits()
	}
	now = now.Add(patience)
	admit("10.0.1.4")
	fifth := admit("10.0.1.5")
	admit("10.0.1.6")
	expect("10.0.1.3", "10.0.1.2", "refused") // silent, talking; not who offers a key
	talks.end()
	talks.end() // once counts
	if g.leaving != 1 || !talks.madeRoom() || offers.madeRoom() {
		t.Errorf("%d leave", g.leaving)
	}
	admit("10.0.0.1")
	admit("10.0.0.2")
	expect("10.0.1.4", "10.0.1.5") // however new they are
	fifth.loggedIn()               // too late
	admit("10.0.0.1")
	expect("refused") // three are leaving
	third.end()
	admit("10.0.0.1")
	expect("10.0.1.1") // however far it is
	fifth.end()
	now = now.Add(patience)
	admit("10.0.1.7")
	expect("refused") // nobody that is known goes for one who is not
	admit("10.0.0.2")
	expect("10.0.0.1") // but for one that is
}

// Whoever waits without a word does not keep out who logs in from elsewhere, and has done
// so before.
func TestSilentOnesMakeRoom(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.Unauthenticated = 4 })
	s.dial(t)
	var first net.Conn
	for i := range 4 {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i))}}
		c := must(from.Dial("tcp", s.address))
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = c
		}
	}
	s.dial(t)
	if err := first.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("one that waits without a word stays")
	}
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(s.log.String(), errMadeRoom.Error()); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log is %s", s.log)
		}
	}
}

// Sources that are named at the start are known, however many they are.
func TestKnown(t *testing.T) {
	var known []netip.Addr
	for i := range 2 * maxSources {
		known = append(known, netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}))
	}
	s := must(New(Options{HostKey: newKey(), Profile: Compatible, Limits: testLimits(), Known: known}))
	for _, address := range []string{"11.0.0.0", "11.0.31.255"} {
		if !s.guard.known.Contains(networkOf(netip.MustParseAddr(address))) {
			t.Errorf("%s is not known", address)
		}
	}
	if s.guard.known.Contains(networkOf(netip.MustParseAddr("11.1.0.0"))) {
		t.Error("one that was not named is known")
	}
}

// Who has logged in no longer counts among those before login.
func TestLoggedInFreesAPlace(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.PerSourceUnauth, l.Unauthenticated = 1, 1 })
	for range 3 {
		s.dial(t)
	}
	waiting := must(net.Dial("tcp", s.address))
	defer waiting.Close()
	if _, err := io.ReadFull(waiting, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if client, err := s.tryDial("signer", s.key); err == nil {
		_ = client.Close()
		t.Error("a second connection before login is admitted")
	}
}

// A listener that cannot accept for a while is asked again.
func TestAcceptGoesOn(t *testing.T) {
	s := newServer(t, nil)
	listener := &failingListener{Listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	listener.failures.Store(3)
	go func() { s.served <- s.Serve(listener) }()
	s.address = listener.Addr().String()
	s.dial(t)
	if listener.failures.Load() >= 0 || !strings.Contains(s.log.String(), "cannot accept a connection") {
		t.Errorf("%d failures left; %s", listener.failures.Load(), s.log)
	}
}

type failingListener struct {
	net.Listener
	failures atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}

// An IPv4 client of a socket for both is the IPv4 address it is.
func TestMappedSource(t *testing.T) {
	mapped := &net.TCPAddr{IP: net.ParseIP("10.0.0.12"), Port: 1}
	mapped.IP = mapped.IP.To16()
	if got := remoteAddress(addressedConn{remote: mapped}); got != netip.MustParseAddr("10.0.0.12") {
		t.Errorf("%s", got)
	}
	scoped := &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}
	if got := remoteAddress(addressedConn{remote: scoped}); got != netip.MustParseAddr("fe80::1") {
		t.Errorf("%s", got)
	}
}

type addressedConn struct {
	net.Conn
	remote net.Addr
}

func (c addressedConn) RemoteAddr() net.Addr { return c.remote }
