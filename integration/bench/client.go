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
	"slices"
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

// turn is whose turn it is to ask, so that none asks more often than another.
var turn int

// load asks n times, over a connection each or all over one, and gives how long
// each took. The answers are checked afterwards.
func load(dial dialer, kex exchange, shared bool, n int, requests []*request, roots *x509.CertPool) (took []time.Duration, elapsed time.Duration, err error) {
	answers := make([][]byte, n)
	took = make([]time.Duration, n)
	var one client
	if shared {
		if one, err = dial(kex); err != nil {
			return nil, 0, err
		}
		defer one.Close() //nolint:errcheck // the answers are checked
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	first := turn
	turn += n
	of := func(i int) *request { return requests[(first+i)%len(requests)] }
	ask := func(i int) error {
		begun := time.Now()
		c := one
		if !shared {
			fresh, err := dial(kex)
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
	for range min(clients, n) {
		group.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || len(failures) > 0
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
		if err := of(i).check(bytes.TrimSpace(answer), roots); err != nil {
			return nil, 0, fmt.Errorf("certificate %d: %w", i, err)
		}
	}
	slices.Sort(took)
	return took, elapsed, nil
}
