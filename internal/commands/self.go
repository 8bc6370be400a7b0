package commands

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/signerd/signerd/signer"
)

// Self is signerd's own client certificate for etcd. It lives in memory, and is
// made anew when a third of its life is left.
type Self struct {
	signer *signer.Signer
	now    func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

// NewSelf makes a Self; its first certificate comes with the first handshake.
func NewSelf(s *signer.Signer) *Self { return &Self{signer: s, now: time.Now} }

// Certificate gives the certificate for a handshake that begins now.
func (s *Self) Certificate(ctx context.Context) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.current; c != nil {
		life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
		// A clock that was ahead when it was made leaves one for the future.
		// And a step of a rotation one by a CA that signs no more.
		now, issuer := s.now(), s.signer.Authority().Active().Certificate
		if c.Leaf.NotAfter.Sub(now) > life/3 && !now.Before(c.Leaf.NotBefore) && c.Leaf.CheckSignatureFrom(issuer) == nil {
			return c, nil
		}
	}
	made, err := s.make(ctx)
	if err != nil {
		return nil, fmt.Errorf("making signerd's own certificate: %w", err)
	}
	s.current = made
	return made, nil
}

func (s *Self) make(ctx context.Context) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := signer.PublicKeyOf(key.Public())
	if err != nil {
		return nil, err
	}
	issued, err := s.signer.Issue(ctx, s.now(), signer.Order{Subject: signer.SelfSubject(), Key: public})
	if err != nil {
		return nil, err
	}
	return issued.Pair(key)
}
