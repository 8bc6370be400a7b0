package sshfront

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	gliderlabs "github.com/gliderlabs/ssh"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
)

// Options are what a Server is made of.
type Options struct {
	HostKey ssh.Signer
	Profile Profile
	Limits  Limits
	Gate    Gate
	Known   []netip.Addr // sources from which somebody was let in before: they make room last
	Log     zerolog.Logger
	Meter   Meter // nil: nobody counts
}

// Meter counts connections by how they went: login, denied, limited (turned away,
// or ended to make room), health_check, or ended before login.
type Meter interface{ Connection(outcome string) }

func (s *Server) count(outcome string) {
	if s.options.Meter != nil {
		s.options.Meter.Connection(outcome)
	}
}

// Server serves SSH connections until it is shut down.
type Server struct {
	options  Options
	guard    *guard
	refusals zerolog.Logger // sampled

	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]struct{}
	draining bool
	work     sync.WaitGroup // connections and sessions
}

// Check says why no Server can be made with a profile and limits: each of the
// profile's algorithms must be available, and as many open files as the limits
// need.
func Check(profile Profile, limits Limits) error {
	return errors.Join(profile.check(), limits.checkFiles())
}

// New makes a Server, if Check lets it.
func New(options Options) (*Server, error) {
	if err := Check(options.Profile, options.Limits); err != nil {
		return nil, err
	}
	guard, err := newGuard(options.Limits, len(options.Known))
	if err != nil {
		return nil, err
	}
	for _, source := range options.Known {
		guard.know(source)
	}
	s := &Server{
		options:  options,
		guard:    guard,
		conns:    map[*conn]struct{}{},
		refusals: options.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second}),
	}
	return s, nil
}

// serverFor makes the gliderlabs server of one connection: with one each, every
// hook knows its connection, and nothing is shared that could be mistaken for
// another's.
func (s *Server) serverFor(c *conn) *gliderlabs.Server {
	return &gliderlabs.Server{
		HostSigners:              []gliderlabs.Signer{s.options.HostKey},
		ServerConfigCallback:     func(gliderlabs.Context) *ssh.ServerConfig { return s.config(c) },
		ConnectionFailedCallback: func(_ net.Conn, err error) { s.logFailure(c, err) },
		ChannelHandlers: map[string]gliderlabs.ChannelHandler{
			"session": func(_ *gliderlabs.Server, login *ssh.ServerConn, offered ssh.NewChannel, ctx gliderlabs.Context) {
				s.openSession(ctx, c, login, offered)
			},
			"default": refuseChannel,
		},
		RequestHandlers: noRequests,
	}
}

// noRequests refuses every global request.
var noRequests = map[string]gliderlabs.RequestHandler{"default": refuseRequest}

func refuseChannel(_ *gliderlabs.Server, _ *ssh.ServerConn, channel ssh.NewChannel, _ gliderlabs.Context) {
	// A client that is gone does not hear it.
	_ = channel.Reject(ssh.Prohibited, "signerd has sessions only")
}

func refuseRequest(gliderlabs.Context, *gliderlabs.Server, *ssh.Request) (bool, []byte) {
	return false, nil
}

// Serve accepts connections until Shutdown, when it returns nil. Where none can
// be accepted for lack of files or memory it waits and goes on.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listener = l
	draining := s.draining
	s.mu.Unlock()
	if draining {
		return l.Close()
	}
	var delay time.Duration
	for {
		c, err := l.Accept()
		if !s.beginConnection(err == nil) {
			if err == nil {
				_ = c.Close() // it came a moment too late
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting connections: %w", err)
		}
		if err != nil {
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.refusals.Error().Err(err).Dur("pause", delay).Msg("cannot accept a connection")
			<-time.After(delay)
			continue
		}
		delay = 0
		go s.handle(c)
	}
}

// beginConnection is false once a shutdown has begun. Otherwise an accepted
// connection is one that the shutdown waits for.
func (s *Server) beginConnection(accepted bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if accepted {
		s.work.Add(1)
	}
	return true
}

// handle is one connection's life.
func (s *Server) handle(raw net.Conn) {
	defer s.work.Done()
	defer raw.Close() //nolint:errcheck // nobody to tell
	defer s.recovered("connection")
	growStack()
	source := remoteAddress(raw)
	ticket, err := s.guard.admit(source, func() { _ = raw.Close() })
	if err != nil {
		s.count("limited")
		s.refusals.Warn().Stringer("source", source).Str("reason", err.Error()).Msg("connection refused")
		return
	}
	defer ticket.end()
	c := newConn(raw, source, ticket, s.options.Limits)
	defer c.ended()
	if !s.track(c) {
		return
	}
	defer s.untrack(c)
	s.serverFor(c).HandleConn(c)
}

func (s *Server) track(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) untrack(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// logFailure logs a connection that ended before login.
func (s *Server) logFailure(c *conn, err error) {
	if c.ticket.wasSilent() && anyContains(s.options.Limits.HealthChecks, c.source) {
		s.count("health_check")
		return
	}
	event := s.refusals.Info().Stringer("source", c.source)
	if c.ticket.madeRoom() {
		s.count("limited")
		event.Str("reason", errMadeRoom.Error()).Msg("connection ended")
		return
	}
	if denied, ok := errors.AsType[*ssh.ServerAuthError](err); ok {
		s.count("denied")
		event.Errs("reasons", denied.Errors).Msg("login denied")
		return
	}
	s.count("ended")
	if c.ticket.wasSilent() || errors.Is(err, io.EOF) {
		event.Msg("the client went away before login")
	} else {
		event.Str("reason", err.Error()).Msg("no login")
	}
}

// recovered ends a panic: it must not reach the goroutine's end, where it would
// take the process with it.
func (s *Server) recovered(where string) {
	if cause := recover(); cause != nil {
		s.options.Log.Error().Str("in", where).Interface("panic", cause).Bytes("stack", debug.Stack()).Msg("panic")
	}
}

// Shutdown stops accepting, ends idle connections and lets commands finish.
// When the context ends first, what still runs is cut off and its error is
// returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	if s.listener != nil {
		s.listener.Close() //nolint:errcheck // it only ends Accept
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()

	finished := make(chan struct{})
	go func() {
		s.work.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.Close() //nolint:errcheck // nobody to tell
	}
	s.mu.Unlock()
	// What hangs beyond its own connection does not keep the process.
	select {
	case <-finished:
	case <-time.After(time.Second):
	}
	return ctx.Err()
}
