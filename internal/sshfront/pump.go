package sshfront

import (
	"context"
	"errors"
	"io"
	"sync"
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

	mu    sync.Mutex
	kept  []byte
	total int64
}

func startPump(channel ssh.Channel) *pump {
	p := &pump{ready: make(chan struct{}), ended: make(chan struct{})}
	go p.run(channel)
	// Extended data, which no client sends, would fill the window too.
	go io.Copy(io.Discard, channel.Stderr()) //nolint:errcheck // ends with the channel
	return p
}

func (p *pump) run(channel io.Reader) {
	buffer := make([]byte, 8<<10)
	over := false
	for {
		n, err := channel.Read(buffer)
		p.mu.Lock()
		p.total += int64(n)
		p.kept = append(p.kept, buffer[:min(n, wire.MaxRequest+1-len(p.kept))]...)
		tooLong := len(p.kept) > wire.MaxRequest
		p.mu.Unlock()
		if (tooLong || err != nil) && !over {
			over = true
			close(p.ready)
		}
		if err != nil {
			close(p.ended)
			return
		}
	}
}

// read is a Stdin.
func (p *pump) read(ctx context.Context) ([]byte, error) {
	select {
	case <-p.ready:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.kept, nil
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, ErrInputOpen
	}
	return nil, ctx.Err()
}

// linger waits for the input's end, for at most a time and maxLinger bytes. A
// client that has sent nothing gets only patience to begin: it may be a
// terminal.
func (p *pump) linger(ctx context.Context, patience, atMost time.Duration) {
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	begun, start := time.Now(), p.received()
	for sent := start; sent-start < maxLinger; sent = p.received() {
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

func (p *pump) received() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}
