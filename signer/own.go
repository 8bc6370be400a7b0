package signer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/signerd/signerd/internal/wire"
)

// Self is signerd's own client certificate for etcd. It lives in memory, and is
// made anew when a third of its life is left.
type Self struct {
	signer *Signer
	now    func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

// Self gives signerd's own certificate, by a clock; it is made at the first handshake.
func (s *Signer) Self(now func() time.Time) *Self { return &Self{signer: s, now: now} }

// Certificate gives the certificate for a handshake that begins now.
func (s *Self) Certificate(ctx context.Context) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if c := s.current; c != nil {
		life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
		// A clock that was ahead when it was made leaves one for the future.
		// And a step of a rotation one by a CA that signs no more.
		issuer := s.signer.authority.Active().Certificate
		if c.Leaf.NotAfter.Sub(now) > life/3 && !now.Before(c.Leaf.NotBefore) && c.Leaf.CheckSignatureFrom(issuer) == nil {
			return c, nil
		}
	}
	made, err := newPair(func(key PublicKey) (*Certificate, error) {
		return s.signer.Issue(ctx, now, Order{Subject: selfSubject(), Key: key})
	})
	if err != nil {
		return nil, fmt.Errorf("making signerd's own certificate: %w", err)
	}
	s.current = made
	return made, nil
}

// Probe makes a certificate by a generation, active or not, that tells by which port
// of a member its CA is accepted. source is this machine's address on the way there.
// It never leaves the signer, and nobody waits for the ledger.
func (s *Signer) Probe(ctx context.Context, now time.Time, g *Generation, source wire.Address) (*tls.Certificate, error) {
	made, err := newPair(func(key PublicKey) (*Certificate, error) {
		return s.issue(ctx, now, Order{Subject: Subject{profile: probe, name: SelfName, addresses: []wire.Address{source}}, Key: key}, g)
	})
	if err != nil {
		return nil, fmt.Errorf("making a probe: %w", err)
	}
	return made, nil
}

// newPair makes a key, and has a certificate issued for it.
func newPair(issue func(PublicKey) (*Certificate, error)) (*tls.Certificate, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := PublicKeyOf(private.Public())
	if err != nil {
		return nil, err
	}
	issued, err := issue(key)
	if err != nil {
		return nil, err
	}
	chain, err := ParseCertificates(issued.PEM)
	if err != nil {
		return nil, err
	}
	pair := &tls.Certificate{PrivateKey: private, Leaf: chain[0]}
	for _, certificate := range chain {
		pair.Certificate = append(pair.Certificate, certificate.Raw)
	}
	return pair, nil
}
