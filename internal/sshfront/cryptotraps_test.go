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

	gliderlabs "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// Traps that golang.org/x/crypto/ssh v0.58 sets, and that gliderlabs/ssh hands
// on with its defaults: each is sprung on a server with those and on ours. The
// traps of the CertChecker are in internal/authkeys.

// Algorithms with SHA-1 and the curves of NIST are in the defaults.
func TestTrapWeakAlgorithms(t *testing.T) {
	key := must(ssh.NewSignerFromKey(must(rsa.GenerateKey(rand.Reader, 3072)))).(ssh.AlgorithmSigner)
	ours := target{address: serveGate(t, Compatible, nil, roles{string(key.PublicKey().Marshal()): "in"}).address}
	defaults := open(t, &gliderlabs.Server{})
	for what, try := range map[string]struct {
		config    ssh.Config
		signature string
	}{
		"group14-sha1": {ssh.Config{KeyExchanges: []string{ssh.InsecureKeyExchangeDH14SHA1}}, ssh.KeyAlgoRSASHA512},
		"nistp256":     {ssh.Config{KeyExchanges: []string{ssh.KeyExchangeECDHP256}}, ssh.KeyAlgoRSASHA512},
		"hmac-sha1":    {ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.HMACSHA1}}, ssh.KeyAlgoRSASHA512},
		"hmac-sha1-96": {ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.InsecureHMACSHA196}}, ssh.KeyAlgoRSASHA512},
		"ssh-rsa":      {ssh.Config{}, ssh.KeyAlgoRSA},
	} {
		signer := must(ssh.NewSignerWithAlgorithms(key, []string{try.signature}))
		for _, g := range []target{defaults, ours} {
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

// An RSA key of any length logs in. Ours leaves that to its Gate: see
// TestTrapShortKey in internal/authkeys.
func TestTrapShortKeyLogsIn(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	short := must(ssh.NewSignerFromKey(must(rsa.GenerateKey(rand.Reader, 1024))))
	client, err := open(t, &gliderlabs.Server{}).dial(wire.User, short)
	if err != nil {
		t.Fatalf("the default refuses it: %v", err)
	}
	_ = client.Close()
}

// A name that the library does not know is dropped from a list in silence; from
// the list of signatures it locks everybody out.
func TestTrapUnknownAlgorithm(t *testing.T) {
	for _, try := range []struct {
		config   ssh.ServerConfig
		misspelt string
		in       bool
	}{
		{ssh.ServerConfig{Config: ssh.Config{KeyExchanges: []string{"mlkem768x25519", ssh.KeyExchangeCurve25519}}}, "mlkem768x25519 ", true},
		{ssh.ServerConfig{PublicKeyAuthAlgorithms: []string{"ssh-ed255119", ssh.KeyAlgoED25519}}, "ssh-ed255119 ", false},
	} {
		defaults := open(t, &gliderlabs.Server{ServerConfigCallback: func(gliderlabs.Context) *ssh.ServerConfig {
			return &ssh.ServerConfig{Config: try.config.Config, PublicKeyAuthAlgorithms: try.config.PublicKeyAuthAlgorithms}
		}})
		client, err := defaults.dial(wire.User, newKey())
		if err == nil {
			_ = client.Close()
		}
		if (err == nil) != try.in {
			t.Errorf("%q: in: %v, want %v; %v", try.misspelt, err == nil, try.in, err)
		}
		chosen := signatures
		if try.config.PublicKeyAuthAlgorithms != nil {
			chosen = try.config.PublicKeyAuthAlgorithms
		}
		if err := available(try.config.Config, chosen); err == nil || !strings.Contains(err.Error()+" ", try.misspelt) {
			t.Errorf("ours starts with %q: %v", try.misspelt, err)
		}
	}
}

// NewServerConn waits for a login for ever.
func TestTrapNoTimeout(t *testing.T) {
	tryToStay(t, open(t, &gliderlabs.Server{}))
}

// Of two readers of a channel the end of input wakes one.
func TestTrapTwoReaders(t *testing.T) {
	var ended atomic.Int32
	g := open(t, &gliderlabs.Server{Handler: func(s gliderlabs.Session) {
		for range 2 {
			go func() {
				_, _ = io.Copy(io.Discard, s)
				ended.Add(1)
			}()
		}
		<-s.Context().Done()
	}})
	client := must(g.dial(wire.User, newKey()))
	defer client.Close()
	session := must(client.NewSession())
	stdin := must(session.StdinPipe())
	if err := session.Start("x"); err != nil {
		t.Fatal(err)
	}
	<-time.After(100 * time.Millisecond) // both read
	_ = stdin.Close()
	for deadline := time.Now().Add(5 * time.Second); ended.Load() == 0 && time.Now().Before(deadline); {
		<-time.After(10 * time.Millisecond)
	}
	<-time.After(200 * time.Millisecond) // time for the other one
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
	defaults := open(t, &gliderlabs.Server{ChannelHandlers: map[string]gliderlabs.ChannelHandler{
		"session": func(_ *gliderlabs.Server, _ *ssh.ServerConn, offered ssh.NewChannel, _ gliderlabs.Context) {
			channel, requests, err := offered.Accept()
			if err != nil {
				return
			}
			_ = channel.Close()
			stay.Add(1)
			ssh.DiscardRequests(requests) // until the library has freed the channel
			stay.Add(-1)
		},
	}})
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
			for deadline := time.Now().Add(5 * time.Second); stay.Load() < flood && time.Now().Before(deadline); {
				<-time.After(10 * time.Millisecond) // the machine is busy
			}
			if n := stay.Load(); n < flood {
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

// deafConn hears nothing of what comes once it is told to stop, not even where
// a read waits for it already.
type deafConn struct {
	net.Conn
	stop  atomic.Bool
	hears chan struct{}
}

func (d *deafConn) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if d.stop.Load() {
		<-d.hears
		return 0, errors.New("deaf")
	}
	return n, err
}
