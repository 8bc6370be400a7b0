package sshfront

import (
	"bufio"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// conn is a client's connection with all its deadlines: it ends when it was
// idle, when login took too long, when it was logged in and unused, and when
// its life is over, whatever the layers above do. It also counts its sessions.
type conn struct {
	net.Conn
	input  *bufio.Reader
	limits Limits
	source netip.Addr
	ticket *ticket
	raw    syscall.RawConn // nil: not a TCP connection
	begun  time.Time

	output   output
	corkTime time.Duration

	mu       sync.Mutex
	hard     time.Time // absolute
	armed    time.Time // when a deadline was set last
	login    bool
	sessions int // open now, until the client has closed them
	opened   int // ever
	commands int // at work now
	draining bool
	unused   *time.Timer
}

func newConn(c net.Conn, source netip.Addr, ticket *ticket, limits Limits) *conn {
	now := time.Now()
	wrapped := &conn{Conn: c, limits: limits, source: source, ticket: ticket, begun: now, hard: now.Add(limits.LoginGrace), corkTime: corkTime}
	if tcp, ok := c.(*net.TCPConn); ok {
		wrapped.raw, _ = tcp.SyscallConn()
	}
	wrapped.input = bufio.NewReaderSize(receiver{wrapped}, versionSize)
	return wrapped
}

// versionSize holds a version line, which x/crypto/ssh reads byte by byte
// (RFC 4253, 4.2: 255 at most). What is read in larger pieces is not copied.
const versionSize = 256

// Read gives what has come. One goroutine at a time reads, as of every SSH
// connection.
func (c *conn) Read(p []byte) (int, error) { return c.input.Read(p) }

// receiver reads from the network.
type receiver struct{ *conn }

func (r receiver) Read(p []byte) (int, error) {
	c := r.conn
	if err := c.arm(); err != nil {
		return 0, err
	}
	if c.raw != nil {
		quickAck(c.raw)
	}
	before := c.beforeLogin()
	if before {
		c.ticket.waits()
	}
	n, err := c.Conn.Read(p)
	if before {
		c.ticket.got(n)
	}
	return n, err
}

// beforeLogin says whether the client has to log in still.
func (c *conn) beforeLogin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.login
}

// arm sets the deadline anew, unless it was set just now: a login alone reads
// and writes twenty times.
func (c *conn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.armed) < c.limits.Idle/idleSteps {
		return nil
	}
	c.armed = now
	deadline := now.Add(c.limits.Idle)
	if c.hard.Before(deadline) {
		deadline = c.hard
	}
	return c.Conn.SetDeadline(deadline)
}

// idleSteps is in how many steps the time for an idle connection is counted.
const idleSteps = 16

// SetDeadline does nothing: gliderlabs/ssh sets one before each Read and
// Write, mostly none at all, and would erase ours, which is not set each time.
func (c *conn) SetDeadline(time.Time) error { return nil }

// loggedIn replaces the deadline for login, under which the reader may already
// be blocked, by that of the connection's life.
func (c *conn) loggedIn() {
	c.mu.Lock()
	c.login = true
	c.hard, c.armed = c.begun.Add(c.limits.ConnectionLife), time.Time{}
	c.unused = time.AfterFunc(c.limits.Unused, func() { c.Close() }) //nolint:errcheck // nobody to tell
	c.mu.Unlock()
	_ = c.arm() // the next Read arms it too
}

// openSession counts a session in, if the limits let it.
func (c *conn) openSession() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.login || c.draining || c.sessions >= c.limits.Sessions || c.opened >= c.limits.SessionsPerConnection {
		return false
	}
	c.sessions++
	c.opened++
	c.unused.Stop()
	return true
}

// closeSession counts it out.
func (c *conn) closeSession() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions--
	if c.sessions > 0 {
		return
	}
	c.unused.Reset(c.limits.Unused)
	c.closeIfDrained()
}

func (c *conn) beginCommand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands++
}

func (c *conn) endCommand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands--
	c.closeIfDrained()
}

// drain lets the commands there are end, and no new session begin.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.closeIfDrained()
}

// closeIfDrained ends a connection that has nothing more to do. One with a
// session whose client has still to take an answer, or to send a command, has a
// while for that. The caller holds mu.
func (c *conn) closeIfDrained() {
	switch {
	case !c.draining || c.commands > 0:
	case c.sessions == 0:
		c.Close() //nolint:errcheck // nobody to tell
	default:
		time.AfterFunc(c.limits.Linger, c.closeIfAtRest)
	}
}

func (c *conn) closeIfAtRest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.commands == 0 {
		c.Close() //nolint:errcheck // nobody to tell
	}
}

// ended stops what would outlive the connection.
func (c *conn) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unused != nil {
		c.unused.Stop()
	}
}
