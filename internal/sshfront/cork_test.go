package sshfront

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// recorder is a connection that keeps what is written, write by write.
type recorder struct {
	net.Conn
	writes chan string
	fails  bool
	closed bool
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.fails {
		return 0, errors.New("broken")
	}
	r.writes <- string(p)
	return len(p), nil
}

func (r *recorder) SetDeadline(time.Time) error { return nil }

func (r *recorder) Close() error {
	r.closed = true
	return nil
}

// What is written between cork and its end goes out at once, in order, and
// soon even if the end does not come.
func TestCork(t *testing.T) {
	r := &recorder{writes: make(chan string, 10)}
	c := newConn(r, netip.Addr{}, nil, testLimits())
	c.corkTime = time.Hour
	write := func(text string) {
		t.Helper()
		if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-r.writes:
			if got != want {
				t.Errorf("%.20q was written, want %.20q", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%.20q was not written", want)
		}
	}
	write("a")
	expect("a")
	letGo := c.cork()
	other := c.cork()
	write("b")
	write("c")
	other()
	expect("bc")
	write("d")
	letGo()
	letGo()
	expect("d")
	c.corkTime = time.Millisecond
	c.cork() // and never let go
	write("e")
	expect("e")
	c.corkTime = time.Hour
	large := string(bytes.Repeat([]byte("f"), maxHeld))
	letGo = c.cork()
	write("f")
	write(large)
	expect("f")
	expect(large)
	letGo()
	if len(r.writes) > 0 {
		t.Errorf("%d more writes", len(r.writes))
	}
	r.fails = true
	letGo = c.cork()
	write("g")
	letGo()
	if !r.closed {
		t.Error("a connection that lost bytes goes on")
	}
}

// An answer, its status and its end are one write.
func TestOneWriteForAnAnswer(t *testing.T) {
	s := newServer(t, nil)
	listener := &countingListener{Listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	go func() { s.served <- s.Serve(listener) }()
	s.address = listener.Addr().String()
	client := s.dial(t)
	run(t, client, "count", strings.NewReader("abc"))
	least := int64(100)
	for range 20 { // the machine may be busy, and a cork does not last
		before := listener.writes.Load()
		run(t, client, "count", strings.NewReader("abc")) // its input has ended when it answers
		least = min(least, listener.writes.Load()-before)
	}
	// The channel is confirmed, the command granted, and the rest.
	if least > 3 {
		t.Errorf("%d writes for a session", least)
	}
}

// A client that keeps Nagle's algorithm on does not wait for acknowledgements:
// not at login, and not for the end of its input.
func TestNagle(t *testing.T) {
	s := newServer(t, nil)
	raw := must(net.Dial("tcp", s.address))
	if err := raw.(*net.TCPConn).SetNoDelay(false); err != nil {
		t.Fatal(err)
	}
	connection, channels, requests, err := ssh.NewClientConn(raw, s.address, &ssh.ClientConfig{
		User: wire.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(s.key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(connection, channels, requests)
	defer client.Close()
	const delayed = 40 * time.Millisecond // tcp(7): an acknowledgement that is not sent at once
	least := time.Hour
	for range 20 {
		begun := time.Now()
		run(t, client, "count", strings.NewReader(strings.Repeat("a", 500)))
		least = min(least, time.Since(begun))
	}
	if least >= delayed {
		t.Errorf("no session took less than %s", least)
	}
}

type countingListener struct {
	net.Listener
	writes atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, &l.writes}, err
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}
