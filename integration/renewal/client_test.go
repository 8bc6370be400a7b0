package renewal

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// client is a machine that renews by signer-renew, outside the hosts.
type client struct {
	dir     string
	mu      sync.Mutex
	serials map[string]bool
}

// newClient gets a client its certificate and renews it until the test ends.
func (w *world) newClient(t *testing.T, name string) *client {
	t.Helper()
	c := &client{dir: t.TempDir(), serials: map[string]bool{}}
	known := w.KnownHosts(t)
	renew := func() error {
		// Two minutes, of which a third may be gone.
		cmd := exec.Command("../../packaging/signer-renew", "-d", c.dir, "-n", name, "-i", w.Path("operator"), "-o", "-k", known, "-r", "80", "-t", "5", w.Bed.Address(11))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "client.crt"), filepath.Join(c.dir, "client.key"))
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.serials[pair.Leaf.SerialNumber.String()] = true
		return nil
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(4 * time.Second):
			}
			if err := renew(); err != nil {
				fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), err) // the signer may be off
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return c
}

// renewals gives how often the certificate was renewed.
func (c *client) renewals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.serials) - 1
}

// config reads the certificate for each handshake, and the CAs once, as
// kube-apiserver does.
func (c *client) config(t *testing.T) *tls.Config {
	t.Helper()
	bundle, err := os.ReadFile(filepath.Join(c.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "client.crt"), filepath.Join(c.dir, "client.key"))
		return &pair, err
	}}
}

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
