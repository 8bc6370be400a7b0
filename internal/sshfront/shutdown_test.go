package sshfront

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

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

// A client that has its answer and does not close its session, as one that was
// suspended, does not hold up a shutdown; a command that comes late is run.
func TestShutdownWithOpenSessions(t *testing.T) {
	s := newServer(t, func(l *Limits) { l.Linger = 200 * time.Millisecond })
	late := must(s.dial(t).NewSession())
	channel, requests, err := s.dial(t).OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests) // and the channel is never closed
	if _, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ C string }{"x"})); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(channel); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	<-s.served
	var out bytes.Buffer
	late.Stdout = &out
	if err := late.Start("wait"); err != nil {
		t.Fatal(err)
	}
	<-s.gate.started
	<-time.After(2 * 200 * time.Millisecond) // longer than a client at rest is given
	close(s.gate.finish)
	if err := late.Wait(); err != nil || out.String() != "done" {
		t.Errorf("a command that came during the shutdown: %q, %v", &out, err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("an open session holds up the shutdown")
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
