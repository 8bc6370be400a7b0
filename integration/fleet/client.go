package fleet

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

// Client is a machine that renews by signer-renew, outside the hosts.
type Client struct {
	Dir     string // has client.key, client.crt and ca.crt
	mu      sync.Mutex
	serials map[string]bool
}

// NewClient gets a client its certificate and renews it until the test ends.
func (w *World) NewClient(t *testing.T, name string) *Client {
	t.Helper()
	c := &Client{Dir: t.TempDir(), serials: map[string]bool{}}
	known := w.KnownHosts(t)
	renew := func() error {
		// Two minutes, of which a third may be gone.
		cmd := exec.Command("../../packaging/signer-renew", "-d", c.Dir, "-n", name, "-i", w.Path("operator"), "-o", "-k", known, "-r", "80", "-t", "5", w.Bed.Address(11))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(c.Dir, "client.crt"), filepath.Join(c.Dir, "client.key"))
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

// Renewals gives how often the certificate was renewed.
func (c *Client) Renewals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.serials) - 1
}

// Config reads the certificate for each handshake, and the CAs once, as
// kube-apiserver does.
func (c *Client) Config(t *testing.T) *tls.Config {
	t.Helper()
	bundle, err := os.ReadFile(filepath.Join(c.Dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(c.Dir, "client.crt"), filepath.Join(c.Dir, "client.key"))
		return &pair, err
	}}
}
