package sshfront

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

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
	if run(t, client, strings.Repeat("x", 200<<10), nil); len(s.log.String()) > 20<<10 {
		t.Errorf("a long command makes a log of %d bytes", len(s.log.String()))
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

// The status comes before the end of the answer: who stops reading there has it.
func TestStatusBeforeTheEnd(t *testing.T) {
	client := newServer(t, nil).dial(t)
	for _, command := range []string{"x", "deny"} {
		channel, requests, err := client.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ C string }{command})); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(channel); err != nil {
			t.Fatal(err)
		}
		// What came before the end has been put into the queue before it.
		select {
		case request := <-requests:
			if request == nil || request.Type != "exit-status" {
				t.Errorf("%s: %+v before the end", command, request)
			}
		default:
			t.Errorf("%s: the end came before the status", command)
		}
		_ = channel.Close()
	}
}

// A client that sends extended data, which means nothing, does not fill its
// window and wait.
func TestExtendedDataIsTaken(t *testing.T) {
	client := newServer(t, nil).dial(t)
	channel, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	sent := make(chan error, 1)
	go func() {
		_, err := channel.Stderr().Write(make([]byte, 3<<20)) // more than a window
		sent <- err
	}()
	select {
	case err := <-sent:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("3 MiB of extended data are not taken")
	}
}

// A command has its time, and so has a client to take the answer.
func TestCommandTime(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.Command = 200 * time.Millisecond })
	_ = must(s.dial(t).NewSession()).Run("wait")
	if err := <-s.gate.canceled; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that takes too long: %v", err)
	}
	client := s.dial(t)
	channel, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if _, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ C string }{"much"})); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }() // and nobody reads the channel
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("a client that does not take its answer keeps the connection")
	}
}
