package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"
)

// client asks for certificates over one connection. Its methods may be called
// from many goroutines.
type client interface {
	Certificate(ctx context.Context, r *request) ([]byte, error) // PEM, the leaf first
	Close() error
}

// exchange is how the two sides of a connection agree on a key.
type exchange string

const (
	curve25519 exchange = "curve25519"
	mlkem      exchange = "mlkem768x25519"
)

// dialer opens a connection.
type dialer func(exchange) (client, error)

// request is what one client asks with, again and again.
type request struct {
	name string
	key  *ecdsa.PublicKey
	pem  []byte
	text string // base64 of pem, as the runbook sends it
}

func newRequest(name string) (*request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
	}, key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return &request{name, &key.PublicKey, text, base64.StdEncoding.EncodeToString(text)}, nil
}

// check says why an answer is not a certificate of the CA for the request.
func (r *request) check(answer []byte, roots *x509.CertPool) error {
	block, _ := pem.Decode(answer)
	if block == nil {
		return fmt.Errorf("no certificate in the answer %.100q", answer)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	if !r.key.Equal(leaf.PublicKey) || leaf.Subject.CommonName != r.name {
		return errors.New("a certificate for another key or name")
	}
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(answer)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// clients ask at once.
const clients = 16

// load is n certificates, over a connection each or all over one.
type load struct {
	dial   dialer
	kex    exchange
	shared bool
	n      int
}

// run asks, and gives how long each took. Before it begins to measure it asks an
// eighth of them, on the same connection if that is shared: the server was at
// rest while others had their turn. before is called then. The answers are
// checked afterwards.
func (a *arena) run(l load, before func() error) (took []time.Duration, elapsed time.Duration, err error) {
	var one client
	if l.shared {
		if one, err = l.dial(l.kex); err != nil {
			return nil, 0, err
		}
		defer one.Close() //nolint:errcheck // the answers are checked
	}
	warm := l
	warm.n = max(1, l.n/8)
	if _, _, err := a.ask(warm, one); err != nil {
		return nil, 0, err
	}
	if err := before(); err != nil {
		return nil, 0, err
	}
	return a.ask(l, one)
}

func (a *arena) ask(l load, one client) (took []time.Duration, elapsed time.Duration, err error) {
	answers := make([][]byte, l.n)
	took = make([]time.Duration, l.n)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	first := a.turn
	a.turn += l.n
	of := func(i int) *request { return a.requests[(first+i)%len(a.requests)] }
	ask := func(i int) error {
		begun := time.Now()
		c := one
		if c == nil {
			fresh, err := l.dial(l.kex)
			if err != nil {
				return err
			}
			defer fresh.Close() //nolint:errcheck // the answers are checked
			c = fresh
		}
		var err error
		answers[i], err = c.Certificate(ctx, of(i))
		took[i] = time.Since(begun)
		return err
	}
	var (
		group    sync.WaitGroup
		mu       sync.Mutex
		next     int
		failures []error
	)
	begun := time.Now()
	for range min(clients, l.n) {
		group.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= l.n || len(failures) > 0
				mu.Unlock()
				if stop {
					return
				}
				if err := ask(i); err != nil {
					mu.Lock()
					failures = append(failures, fmt.Errorf("certificate %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	elapsed = time.Since(begun)
	if err := errors.Join(failures...); err != nil {
		return nil, 0, err
	}
	for i, answer := range answers {
		if err := of(i).check(bytes.TrimSpace(answer), a.roots); err != nil {
			return nil, 0, fmt.Errorf("certificate %d: %w", i, err)
		}
	}
	return took, elapsed, nil
}
