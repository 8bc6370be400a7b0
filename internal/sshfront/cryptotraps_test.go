package sshfront

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// Traps that golang.org/x/crypto/ssh v0.58 sets, each sprung on a server with
// its defaults and on ours. Those of its CertChecker are in internal/authkeys.

// plain starts a server on x/crypto/ssh alone that lets every key in; handle has
// its sessions.
func plain(t *testing.T, config ssh.Config, handle func(ssh.Channel, <-chan *ssh.Request)) target {
	t.Helper()
	server := &ssh.ServerConfig{Config: config, PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	server.AddHostKey(newKey())
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, channels, requests, err := ssh.NewServerConn(c, server)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for offered := range channels {
					if channel, requests, err := offered.Accept(); err == nil {
						go handle(channel, requests)
					}
				}
			}()
		}
	}()
	return target{listener.Addr().String(), true}
}

func discard(_ ssh.Channel, requests <-chan *ssh.Request) { ssh.DiscardRequests(requests) }

// Algorithms with SHA-1 are in the defaults.
func TestTrapWeakAlgorithms(t *testing.T) {
	private := must(rsa.GenerateKey(rand.Reader, 3072))
	key := must(ssh.NewSignerFromKey(private)).(ssh.AlgorithmSigner)
	ours := target{address: serveGate(t, Compatible, nil, roles{string(key.PublicKey().Marshal()): "in"}).address}
	for what, try := range map[string]struct {
		config    ssh.Config
		signature string
	}{
		"key exchange": {ssh.Config{KeyExchanges: []string{ssh.InsecureKeyExchangeDH14SHA1}}, ssh.KeyAlgoRSASHA512},
		"MAC":          {ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.HMACSHA1}}, ssh.KeyAlgoRSASHA512},
		"signature":    {ssh.Config{}, ssh.KeyAlgoRSA},
	} {
		signer := must(ssh.NewSignerWithAlgorithms(key, []string{try.signature}))
		for _, g := range []target{plain(t, ssh.Config{}, discard), ours} {
			client, err := ssh.Dial("tcp", g.address, &ssh.ClientConfig{
				Config: try.config, User: wire.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			})
			if err == nil {
				_ = client.Close()
			}
			g.expect(t, err == nil, what, err)
		}
	}
	// The same key with SHA-2 comes in.
	client, err := ours.dial(wire.User, key)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
}

// A name that the library does not know is dropped from a list in silence.
func TestTrapUnknownAlgorithm(t *testing.T) {
	misspelt := ssh.Config{KeyExchanges: []string{"mlkem768x25519", ssh.KeyExchangeCurve25519}}
	client, err := plain(t, misspelt, discard).dial(wire.User, newKey())
	if err != nil {
		t.Fatalf("the default refuses it: %v", err)
	}
	_ = client.Close()
	if err := available(misspelt, signatures); err == nil || !strings.Contains(err.Error(), "mlkem768x25519 ") {
		t.Errorf("a key exchange: %v", err)
	}
	if err := available(ssh.Config{}, []string{"ssh-ed255119"}); err == nil {
		t.Error("a signature that is unknown is available")
	}
}

// NewServerConn waits for a login for ever.
func TestTrapNoTimeout(t *testing.T) {
	tryToStay(t, plain(t, ssh.Config{}, discard))
}

// Of two readers of a channel the end of input wakes one.
func TestTrapTwoReaders(t *testing.T) {
	var ended atomic.Int32
	g := plain(t, ssh.Config{}, func(channel ssh.Channel, requests <-chan *ssh.Request) {
		for range 2 {
			go func() {
				_, _ = io.Copy(io.Discard, channel)
				ended.Add(1)
			}()
		}
		<-time.After(50 * time.Millisecond) // both read
		ssh.DiscardRequests(requests)
	})
	client := must(g.dial(wire.User, newKey()))
	defer client.Close()
	session := must(client.NewSession())
	<-time.After(100 * time.Millisecond)
	stdin := must(session.StdinPipe())
	_ = stdin.Close()
	<-time.After(200 * time.Millisecond)
	if n := ended.Load(); n != 1 {
		t.Errorf("%d of two readers ended, not one: the library was mended", n)
	}

	// Ours leaves nothing behind, however its sessions end.
	ours := newServer(t, nil)
	mine := ours.dial(t)
	run(t, mine, "x", nil) // whatever the first one starts for good
	before := runtime.NumGoroutine()
	for steady := 0; steady < 20; steady++ { // until its own have ended
		<-time.After(5 * time.Millisecond)
		if n := runtime.NumGoroutine(); n != before {
			before, steady = n, 0
		}
	}
	for command, input := range map[string]int{"x": 0, "much": 0, "count": 100_000, "deny": 100_000, "panic": 100_000} {
		for range 3 {
			run(t, mine, command, strings.NewReader(strings.Repeat("a", input)))
		}
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A channel that the server closed stays in the connection until the client has
// closed it too: a client that never does may have only as many as are counted.
func TestTrapClosedChannelsStay(t *testing.T) {
	const flood = 20
	var stay atomic.Int32
	defaults := plain(t, ssh.Config{}, func(channel ssh.Channel, requests <-chan *ssh.Request) {
		_ = channel.Close()
		stay.Add(1)
		ssh.DiscardRequests(requests) // until the library has freed the channel
		stay.Add(-1)
	})
	ours := newServer(t, func(l *Limits) { l.Exec = 50 * time.Millisecond })
	for _, g := range []target{defaults, {address: ours.address}} {
		raw := must(net.Dial("tcp", g.address))
		deaf := &deafConn{Conn: raw, hears: make(chan struct{})}
		connection, channels, requests, err := ssh.NewClientConn(deaf, g.address, &ssh.ClientConfig{
			User: wire.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(ours.key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		go func() {
			for range channels {
				t.Error("a server opens a channel")
			}
		}()
		deaf.stop.Store(true)
		for range flood {
			go func() { _, _, _ = connection.OpenChannel("session", nil) }()
		}
		<-time.After(500 * time.Millisecond) // ten times longer than a session without a command may stay
		if g.trapped {
			// A read that had begun may still have heard of a few.
			if n := stay.Load(); n < flood/2 {
				t.Errorf("%d of %d closed channels stay: the library was mended", n, flood)
			}
		} else {
			if n, limit := ours.openSessions(), ours.options.Limits.Sessions; n != limit {
				t.Errorf("%d sessions are open, want %d", n, limit)
			}
		}
		close(deaf.hears)
		_ = connection.Close()
	}
}

// deafConn does not read once it is told to stop.
type deafConn struct {
	net.Conn
	stop  atomic.Bool
	hears chan struct{}
}

func (d *deafConn) Read(p []byte) (int, error) {
	if d.stop.Load() {
		<-d.hears
		return 0, errors.New("deaf")
	}
	return d.Conn.Read(p)
}
