package renewal

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// prober opens new connections to some addresses all the time.
type prober struct {
	stop, done chan struct{}

	mu     sync.Mutex
	shakes int
	failed []error
	served map[string]map[string]bool // address to the serials that it showed
}

func newProber(config *tls.Config, addresses []string) *prober {
	p := &prober{stop: make(chan struct{}), done: make(chan struct{}), served: map[string]map[string]bool{}}
	go func() {
		defer close(p.done)
		for {
			for _, a := range addresses {
				p.shake(config, a)
			}
			select {
			case <-p.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return p
}

// shake makes a whole handshake: in TLS 1.3 a refusal comes with the first read.
func (p *prober) shake(config *tls.Config, address string) {
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.Dial("tcp", address)
	var serial string
	if err == nil {
		shaken := conn.(*tls.Conn)
		serial = shaken.ConnectionState().PeerCertificates[0].SerialNumber.String()
		if _, err = fmt.Fprintf(conn, "GET /version HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", address); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		_ = conn.Close() // it was read
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shakes++
	if err != nil {
		p.failed = append(p.failed, fmt.Errorf("%s %s: %w", time.Now().Format(time.TimeOnly), address, err))
		return
	}
	if p.served[address] == nil {
		p.served[address] = map[string]bool{}
	}
	p.served[address][serial] = true
}

// renewals gives the least number of certificates that one address showed after
// its first.
func (p *prober) renewals(addresses []string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	least := len(p.served[addresses[0]]) - 1
	for _, a := range addresses {
		least = min(least, len(p.served[a])-1)
	}
	return least
}

// end stops it and gives how many handshakes there were, and what failed.
func (p *prober) end() (shakes int, failed []error) {
	close(p.stop)
	<-p.done
	return p.shakes, p.failed
}
