package sshfront

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// session is one channel on which one command runs.
type session struct {
	server  *Server
	conn    *conn
	caller  Caller
	channel ssh.Channel
	stdin   *pump
	ctx     context.Context // ends with the channel, the connection or the time for a command
	cancel  context.CancelFunc
}

// openSession serves one session channel, in a goroutine of its own. The
// context ends with the connection.
func (s *Server) openSession(ctx context.Context, c *conn, login *ssh.ServerConn, offered ssh.NewChannel) {
	defer s.recovered("session")
	growStack()
	if !s.beginSession(c) {
		_ = offered.Reject(ssh.ResourceShortage, "too many sessions on this connection, or the signer is stopping")
		return
	}
	defer s.work.Done()
	channel, requests, err := offered.Accept()
	if err != nil {
		c.closeSession()
		return
	}
	defer channel.Close() //nolint:errcheck // the client may have been first
	run := &session{server: s, conn: c, channel: channel, stdin: startPump(channel)}
	// Whoever calls is what the signature proved, and nothing else.
	run.caller = login.Permissions.ExtraData[callerKey{}].(Caller)
	run.ctx, run.cancel = context.WithCancel(ctx)
	defer run.cancel()
	commands := make(chan string, 1)
	go run.receive(requests, commands)
	select {
	case command := <-commands:
		run.serve(command)
	case <-time.After(s.options.Limits.Exec):
		s.options.Log.Warn().Stringer("by", run.caller).Stringer("source", c.source).Msg("a session without a command was closed")
	case <-run.ctx.Done():
	}
}

// beginSession keeps a session apart from a shutdown that begins: it is
// refused, or waited for.
func (s *Server) beginSession(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || !c.openSession() {
		return false
	}
	s.work.Add(1)
	return true
}

// receive answers a session's requests until the client closes the channel;
// only then is the session gone from the connection's count. The first command
// is passed on; a shell is the empty command. All else is refused: terminals,
// environment, agents, subsystems, signals.
func (r *session) receive(requests <-chan *ssh.Request, commands chan<- string) {
	defer r.conn.closeSession()
	defer r.cancel()
	defer r.server.recovered("session requests")
	count, started := 0, false
	for request := range requests {
		if count++; count > r.server.options.Limits.RequestsPerSession {
			r.conn.Close() //nolint:errcheck // nobody to tell
		}
		command, ok := commandOf(request)
		ok = ok && !started
		if request.WantReply {
			_ = request.Reply(ok, nil) // a client that is gone does not hear it
		}
		if ok {
			started = true
			commands <- command
		}
	}
}

func commandOf(request *ssh.Request) (command string, ok bool) {
	switch request.Type {
	case "shell":
		return "", len(request.Payload) == 0
	case "exec":
		var payload struct{ Command string }
		err := ssh.Unmarshal(request.Payload, &payload)
		return payload.Command, err == nil
	}
	return "", false
}

// serve is the only place where a command ends, is logged, and gets its status.
func (r *session) serve(command string) {
	begun := time.Now()
	r.conn.beginCommand()
	defer r.conn.endCommand()
	ctx, cancel := context.WithTimeout(r.ctx, r.server.options.Limits.Command)
	defer cancel()
	answer, err := r.call(ctx, command)
	status, took := wire.StatusOf(err), time.Since(begun)
	// The line is written before the client knows, unless that takes long.
	letGo := r.conn.cork()
	defer letGo()
	r.finish(answer, err, status, letGo)
	event := r.server.options.Log.WithLevel(levelOf(status)).
		Stringer("by", r.caller).Stringer("source", r.conn.source).
		Str("command", command[:min(len(command), wire.MaxCommand)]).Uint32("status", uint32(status)).Dur("ms", took)
	if err != nil {
		event = event.Str("reason", reason(err))
	}
	if answer.Serial != "" {
		event = event.Str("serial", answer.Serial)
	}
	event.Msg("session")
	_ = r.channel.Close()
}

// call runs the command; a panic is an error like any other.
func (r *session) call(ctx context.Context, command string) (answer wire.Answer, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			answer, err = wire.Answer{}, fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	return r.caller.Call(ctx, command, r.stdin.read)
}

// finish sends the whole answer or nothing, then the status, then the end, and
// takes what the client still sends for a while: an answer that closes a
// client's pipe would be lost on clients that stop at a write error. The status
// comes before the end so that no client ever misses it. letGo ends a cork.
func (r *session) finish(answer wire.Answer, err error, status wire.Status, letGo func()) {
	// A client that takes nothing must not keep the session.
	stuck := time.AfterFunc(r.server.options.Limits.Command, func() { r.conn.Close() }) //nolint:errcheck // nobody to tell
	defer stuck.Stop()
	stdout, stderr := answer.Output, answer.Note
	if err != nil {
		stdout, stderr = nil, publicText(err)
	}
	// Errors from here on mean that the client is gone.
	_, _ = r.channel.Write(stdout)
	if stderr != "" {
		_, _ = fmt.Fprintln(r.channel.Stderr(), stderr)
	}
	_, _ = r.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
	_ = r.channel.CloseWrite()
	if r.stdin.hasEnded() {
		return
	}
	letGo()
	// A refusal may be faster than the client's first byte.
	patience := time.Duration(0)
	if err != nil {
		patience = refusalPatience
	}
	r.stdin.linger(r.ctx, patience, r.server.options.Limits.Linger)
}
