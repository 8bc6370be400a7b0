package sshfront

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// pump is the one reader of a session's input. It reads from the start to the
// end, so that the client is never stopped by a full window, keeps what a
// request may have and passes over the rest. A second reader must not exist:
// at the end of input x/crypto/ssh wakes only one.
type pump struct {
	ready chan struct{} // closed when the input has ended or is too long
	ended chan struct{} // closed when the input has ended
	kept  []byte        // set when ready
	total counter
}

func startPump(channel ssh.Channel) *pump {
	p := &pump{ready: make(chan struct{}), ended: make(chan struct{})}
	go p.run(channel)
	// Extended data, which no client sends, would fill the window too.
	go io.Copy(io.Discard, channel.Stderr()) //nolint:errcheck // ends with the channel
	return p
}

func (p *pump) run(channel io.Reader) {
	buffer := make([]byte, 0, 1<<10) // a request is a few hundred bytes
	var err error
	for err == nil && len(buffer) <= wire.MaxRequest {
		if len(buffer) == cap(buffer) {
			buffer = slices.Grow(buffer, min(len(buffer), wire.MaxRequest+1-len(buffer)))
		}
		var n int
		n, err = channel.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		p.total.Add(int64(n))
	}
	p.kept = buffer[:min(len(buffer), wire.MaxRequest+1)]
	if err == nil {
		close(p.ready)
		_, _ = io.Copy(&p.total, channel) // ends with the channel
		close(p.ended)
		return
	}
	close(p.ended) // before whoever waits looks whether it has
	close(p.ready)
}

// counter counts bytes.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

// read is a Stdin.
func (p *pump) read(ctx context.Context) ([]byte, error) {
	select {
	case <-p.ready:
		return p.kept, nil
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, ErrInputOpen
	}
	return nil, ctx.Err()
}

func (p *pump) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// linger waits for the input's end, for at most a time and maxLinger bytes. A
// client that has sent nothing gets only patience to begin: it may be a
// terminal.
func (p *pump) linger(ctx context.Context, patience, atMost time.Duration) {
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	begun, start := time.Now(), p.total.Load()
	for sent := start; sent-start < maxLinger; sent = p.total.Load() {
		if sent == 0 && time.Since(begun) >= patience {
			return
		}
		select {
		case <-p.ended:
			return
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
