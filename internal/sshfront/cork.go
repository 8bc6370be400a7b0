package sshfront

import (
	"sync"
	"time"
)

// output is what a connection writes.
type output struct {
	sync.Mutex // held while something is written
	corks      int
	held       []byte
}

const (
	maxHeld  = 32 << 10 // bytes
	corkTime = 5 * time.Millisecond
)

func (c *conn) Write(p []byte) (int, error) {
	c.output.Lock()
	defer c.output.Unlock()
	if c.output.corks > 0 && len(c.output.held)+len(p) <= maxHeld {
		c.output.held = append(c.output.held, p...)
		return len(p), nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.send(p)
}

func (c *conn) send(p []byte) (int, error) {
	if err := c.arm(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// cork holds back what is written until it is let go, so that an answer, its
// status and its end go out at once: each write is a system call here and a
// wake-up there. Nothing waits longer than corkTime, as whoever writes could
// itself be waiting for the client.
func (c *conn) cork() (letGo func()) {
	c.output.Lock()
	defer c.output.Unlock()
	c.output.corks++
	once := sync.OnceFunc(func() {
		c.output.Lock()
		defer c.output.Unlock()
		c.output.corks--
		_ = c.flush() // the next Write or Read says it too
	})
	timer := time.AfterFunc(c.corkTime, once)
	return func() {
		timer.Stop()
		once()
	}
}

// flush sends what was held back. Where it fails a part may have been sent, and
// the connection ends. The caller holds output.
func (c *conn) flush() error {
	if len(c.output.held) == 0 {
		return nil
	}
	_, err := c.send(c.output.held)
	c.output.held = c.output.held[:0]
	if err != nil {
		c.Close() //nolint:errcheck // nobody to tell
	}
	return err
}
