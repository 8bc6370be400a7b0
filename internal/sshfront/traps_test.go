package sshfront

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gliderlabs "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/need"
	"github.com/signerd/signerd/internal/wire"
)

// Traps that gliderlabs/ssh v0.3.8 sets for who trusts its defaults. Each is
// tried on a server with those, which it catches, and on ours, which it does
// not. Where the first half of a test fails, the library was mended.

// The clients of the tests below log in where they may.
func TestHonestLogins(t *testing.T) {
	listed, key := keyFile(t, "listed")
	other, _ := keyFile(t, "other")
	s := serveGate(t, Compatible, nil, roles{string(key.PublicKey().Marshal()): "operator"})
	g := target{address: s.address}
	if out, err := openSSH(t, g, "-l", wire.User, "-i", listed); out != "operator" {
		t.Errorf("ssh: %q, %v", out, err)
	}
	if out, err := libSSH(t, g, "honest", listed, other); out != "operator" {
		t.Errorf("libssh: %q, %v", out, err)
	}
}

// T1: a callback for keys that only the configuration has is not looked at:
// who has no key is let in.
func TestTrapNoKey(t *testing.T) {
	listed, key := keyFile(t, "listed")
	other, _ := keyFile(t, "other")
	defaults := &gliderlabs.Server{
		ServerConfigCallback: func(gliderlabs.Context) *ssh.ServerConfig {
			return &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				return nil, errors.New("nobody")
			}}
		},
		Handler: func(s gliderlabs.Session) { _, _ = io.WriteString(s, "in") },
	}
	ours := serveGate(t, Compatible, nil, roles{string(key.PublicKey().Marshal()): "in"})
	spring(t, defaults, ours, func(t *testing.T, g target) {
		client, err := g.dial(wire.User)
		if err == nil {
			_ = client.Close()
		}
		g.expect(t, err == nil, "Go", err)
		out, err := openSSH(t, g, "-l", wire.User, "-o", "PubkeyAuthentication=no")
		g.expect(t, out == "in", "ssh", err)
		out, err = libSSH(t, g, "no-key", listed, other)
		g.expect(t, out == "in", "libssh", err)
	})
}

// T2: the user is stored once for a connection: who tries one user and logs in
// as another is taken for the first. OpenSSH's client cannot change its user.
func TestTrapTwoUsers(t *testing.T) {
	listed, key := keyFile(t, "listed")
	other, _ := keyFile(t, "other")
	defaults := &gliderlabs.Server{
		PublicKeyHandler: func(ctx gliderlabs.Context, offered gliderlabs.PublicKey) bool {
			return ctx.User() == wire.User && gliderlabs.KeysEqual(offered, key.PublicKey())
		},
		Handler: func(s gliderlabs.Session) { _, _ = io.WriteString(s, s.User()) },
	}
	ours := serveGate(t, Compatible, nil, roles{string(key.PublicKey().Marshal()): "root"})
	spring(t, defaults, ours, func(t *testing.T, g target) {
		out, err := libSSH(t, g, "two-users", listed, other)
		g.expect(t, out == "root", "libssh", out, err)
		if out, err := openSSH(t, g, "-l", "root", "-i", listed); err == nil {
			t.Errorf("root is let in at the first attempt: %q", out)
		}
		// The honest way round is open here.
		if out, err := libSSH(t, g, "root-first", listed, other); !g.trapped && err != nil {
			t.Errorf("signer after root: %q, %v", out, err)
		}
	})
}

// T3: what a handler stores while a key is offered stays when another one's
// signature logs in (CVE-2024-45337).
func TestTrapOfferedKey(t *testing.T) {
	user, userKey := keyFile(t, "user")
	admin, adminKey := keyFile(t, "admin")
	defaults := &gliderlabs.Server{
		PublicKeyHandler: func(ctx gliderlabs.Context, offered gliderlabs.PublicKey) bool {
			if gliderlabs.KeysEqual(offered, adminKey.PublicKey()) {
				ctx.SetValue("role", "admin")
				return true
			}
			return gliderlabs.KeysEqual(offered, userKey.PublicKey())
		},
		Handler: func(s gliderlabs.Session) { _, _ = fmt.Fprint(s, s.Context().Value("role")) },
	}
	ours := serveGate(t, Compatible, nil, roles{
		string(userKey.PublicKey().Marshal()): "user", string(adminKey.PublicKey().Marshal()): "admin",
	})
	spring(t, defaults, ours, func(t *testing.T, g target) {
		// The public key alone is enough to offer it.
		if err := os.Rename(admin, admin+".away"); err != nil {
			t.Fatal(err)
		}
		out, err := openSSH(t, g, "-l", wire.User, "-i", admin+".pub", "-i", user)
		if err := os.Rename(admin+".away", admin); err != nil {
			t.Fatal(err)
		}
		g.expectRole(t, "ssh", out, err)
		out, err = libSSH(t, g, "offered-key", user, admin)
		g.expectRole(t, "libssh", out, err)
	})
}

// T4: a handler that panics takes the process with it.
func TestTrapPanic(t *testing.T) {
	if inChild("panic", func() {
		listener := must(net.Listen("tcp", "127.0.0.1:0"))
		_, _ = fmt.Fprintln(os.Stdout, listener.Addr())
		_ = (&gliderlabs.Server{PublicKeyHandler: anyKey, Handler: func(gliderlabs.Session) { panic("on purpose") }}).Serve(listener)
	}) {
		return
	}
	child := startChild(t, "panic")
	address, err := child.line()
	if err != nil {
		t.Fatal(err)
	}
	client, err := target{address: address}.dial(wire.User, newKey())
	if err != nil {
		t.Fatal(err)
	}
	_ = must(client.NewSession()).Run("x")
	if output, err := child.wait(); err == nil || !strings.Contains(output, "panic: on purpose") {
		t.Errorf("the process with the defaults: %v\n%s", err, output)
	}

	ours := newServer(t, nil)
	if _, _, status := run(t, ours.dial(t), "panic", nil); status != int(wire.Internal) {
		t.Errorf("status %d", status)
	}
	if stdout, _, _ := run(t, ours.dial(t), "x", nil); stdout != "<x>" {
		t.Errorf("after it: %q", stdout)
	}
}

// T5: a login may take for ever.
func TestTrapNoLoginGrace(t *testing.T) {
	ours := newServer(t, func(l *Limits) { l.LoginGrace = 200 * time.Millisecond })
	spring(t, &gliderlabs.Server{PublicKeyHandler: anyKey}, ours, tryToStay)
}

// T6: a deadline that ConnCallback sets is erased by the first byte either way.
func TestTrapErasedDeadline(t *testing.T) {
	defaults := &gliderlabs.Server{PublicKeyHandler: anyKey, ConnCallback: func(_ gliderlabs.Context, c net.Conn) net.Conn {
		_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		return c
	}}
	ours := newServer(t, func(l *Limits) { l.LoginGrace = 200 * time.Millisecond })
	spring(t, defaults, ours, tryToStay)
}

// tryToStay is caught if it may stay for a second without a word.
func tryToStay(t *testing.T, g target) {
	c := must(net.Dial("tcp", g.address))
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, err := io.Copy(io.Discard, c)
	g.expect(t, errors.Is(err, os.ErrDeadlineExceeded), err)
}

// T7: environment requests are kept without bound, and all granted.
func TestTrapEnvironment(t *testing.T) {
	const flood, size = 200, 64 << 10
	kept := make(chan int, 1)
	defaults := &gliderlabs.Server{PublicKeyHandler: anyKey, Handler: func(s gliderlabs.Session) {
		bytes := 0
		for _, variable := range s.Environ() {
			bytes += len(variable)
		}
		kept <- bytes
	}}
	ours := newServer(t, nil)
	spring(t, defaults, ours, func(t *testing.T, g target) {
		client, err := g.dial(wire.User, ours.key)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		session := must(client.NewSession())
		granted := 0
		for i := range flood {
			ok, err := session.SendRequest("env", true, ssh.Marshal(struct{ Name, Value string }{fmt.Sprint(i), strings.Repeat("x", size)}))
			if err != nil {
				break
			}
			if ok {
				granted++
			}
		}
		g.expect(t, granted > 0, granted)
		if g.trapped {
			if _ = session.Run("x"); <-kept < flood*size {
				t.Error("the defaults keep less than was sent")
			}
		}
	})
}

// T8: a connection may open any number of channels.
func TestTrapChannels(t *testing.T) {
	const flood = 200
	ours := newServer(t, nil)
	defaults := &gliderlabs.Server{PublicKeyHandler: anyKey, Handler: func(s gliderlabs.Session) { <-s.Context().Done() }}
	spring(t, defaults, ours, func(t *testing.T, g target) {
		client, err := g.dial(wire.User, ours.key)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		opened := 0
		for range flood {
			if _, err := client.NewSession(); err == nil {
				opened++
			}
		}
		g.expect(t, opened == flood, opened)
		if want := ours.options.Limits.Sessions; !g.trapped && opened != want {
			t.Errorf("%d sessions, want %d", opened, want)
		}
	})
}

// T9: after Shutdown has given up, idle connections may open new sessions; and
// it does not wait for handlers whose connection is gone.
func TestTrapShutdown(t *testing.T) {
	started, finish := make(chan struct{}, 2), make(chan struct{})
	defer close(finish)
	defaults := &gliderlabs.Server{PublicKeyHandler: anyKey, Handler: func(s gliderlabs.Session) {
		if s.RawCommand() == "wait" {
			started <- struct{}{}
			<-finish
		}
	}}
	ours := newServer(t, nil)
	ours.gate.stubborn = make(chan struct{})
	defer close(ours.gate.stubborn)
	spring(t, defaults, ours, func(t *testing.T, g target) {
		shutdown := ours.Shutdown
		begun := ours.gate.started
		if g.trapped {
			shutdown, begun = defaults.Shutdown, started
		}
		idle, err := g.dial(wire.User, ours.key)
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		busy, err := g.dial(wire.User, ours.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := must(busy.NewSession()).Start("wait"); err != nil {
			t.Fatal(err)
		}
		<-begun
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_ = busy.Close() // its handler goes on
		if g.trapped {
			_ = shutdown(ctx) // gives up for the idle one
		} else if err := shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown did not wait for the handler: %v", err)
		}
		session, err := idle.NewSession()
		if err == nil {
			err = session.Run("x")
		}
		g.expect(t, err == nil, "a session after the shutdown", err)
		if g.trapped {
			_ = idle.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := shutdown(ctx); err != nil {
				t.Errorf("the defaults wait for the handler of a connection that is gone: %v", err)
			}
		}
	})
}

// T10: a configuration that is returned twice is changed by two connections at
// once. Ours is new for each.
func TestTrapSharedConfiguration(t *testing.T) {
	const child = "race"
	if inChild(child, func() {
		shared := &ssh.ServerConfig{NoClientAuth: true}
		defaults := &gliderlabs.Server{ServerConfigCallback: func(gliderlabs.Context) *ssh.ServerConfig { return shared }}
		listener := must(net.Listen("tcp", "127.0.0.1:0"))
		go func() { _ = defaults.Serve(listener) }()
		dialAtOnce(target{address: listener.Addr().String()}, newKey())
	}) {
		return
	}
	if !raceEnabled {
		need.Lacking(t, "the race detector is off (go test -race)")
	}
	if output, err := startChild(t, child).wait(); err == nil || !strings.Contains(output, "DATA RACE") {
		t.Errorf("the process with the defaults: %v\n%s", err, output)
	}
	ours := newServer(t, nil)
	dialAtOnce(target{address: ours.address}, ours.key)
	if one, other := ours.config(&conn{}), ours.config(&conn{}); one == other {
		t.Error("two connections share a configuration")
	}
}

func dialAtOnce(g target, key ssh.Signer) {
	done := make(chan struct{})
	const clients = 8
	for range clients {
		go func() {
			if client, err := g.dial(wire.User, key); err == nil {
				_ = client.Close()
			}
			done <- struct{}{}
		}()
	}
	for range clients {
		<-done
	}
}

// More of the library's defaults: an agent is granted, an exec request that
// does not parse is a shell, closing a channel does not cancel its handler, the
// server names its library, and a host key that is missing is made up.
func TestTrapsInSessions(t *testing.T) {
	canceled := make(chan struct{}, 1)
	defaults := &gliderlabs.Server{PublicKeyHandler: anyKey, Handler: func(s gliderlabs.Session) {
		if s.RawCommand() == "wait" {
			<-s.Context().Done()
			canceled <- struct{}{}
		}
	}}
	ours := newServer(t, nil)
	spring(t, defaults, ours, func(t *testing.T, g target) {
		client, err := g.dial(wire.User, ours.key)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		g.expect(t, bytes.HasPrefix(client.ServerVersion(), []byte("SSH-2.0-Go")), "the version", string(client.ServerVersion()))
		session := must(client.NewSession())
		granted, _ := session.SendRequest("auth-agent-req@openssh.com", true, nil)
		g.expect(t, granted, "an agent")
		granted, _ = session.SendRequest("exec", true, []byte{0, 0, 0, 9, 'x'})
		g.expect(t, granted, "an exec request that does not parse")

		waiting := must(client.NewSession())
		if err := waiting.Start("wait"); err != nil {
			t.Fatal(err)
		}
		if !g.trapped {
			<-ours.gate.started
		}
		_ = waiting.Close()
		ended := make(chan bool, 1)
		go func() {
			select {
			case <-canceled:
				ended <- true
			case <-ours.gate.canceled:
				ended <- true
			case <-time.After(500 * time.Millisecond):
				ended <- false
			}
		}()
		g.expect(t, !<-ended, "the handler of a channel that was closed goes on")
	})
	if _, err := LoadHostKey(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing host key is no error")
	}
}
