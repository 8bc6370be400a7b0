package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Successor makes the generation that is to follow the active one: a key of the
// same kind, P-256 where that was RSA.
func (s *Signer) Successor(now time.Time) (*Generation, error) {
	curve := elliptic.P256()
	if old, ok := s.authority.Active().Certificate.PublicKey.(*ecdsa.PublicKey); ok && old.Curve == elliptic.P384() {
		curve = elliptic.P384()
	}
	return newCA(s.cluster, curve, now)
}

// SuppliedSuccessor makes the generation that is to follow the active one of a CA
// that was made elsewhere: its certificate and its unencrypted key, PEM, in any
// order. The error wraps ErrRequest.
func (s *Signer) SuppliedSuccessor(data []byte, now time.Time) (*Generation, error) {
	certPEM, keyPEM, err := splitPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	g, err := newGeneration(certPEM, keyPEM, Passive)
	if err == nil {
		err = errors.Join(checkLife(g.Certificate, now), set{s.authority.Active(), g}.check())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	return g, nil
}

// crossSigned gives a generation with a certificate for its key by old, so that what
// it signs is accepted by whoever trusts only old (RFC 5280, 3.2, self-issued and
// cross-certificates). An old CA that may not sign CAs leaves it as it is.
func (g *Generation) crossSigned(old *Generation, now time.Time) (*Generation, error) {
	if !old.CanCrossSign() {
		return g, nil
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	oldID, err := keyIDOf(old.Certificate)
	if err != nil {
		return nil, err
	}
	ownID, err := keyIDOf(g.Certificate)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		RawSubject:            g.Certificate.RawSubject,
		NotBefore:             latest(now.Add(-backdate).Truncate(time.Second).UTC(), old.Certificate.NotBefore, g.Certificate.NotBefore),
		NotAfter:              earliest(old.Certificate.NotAfter, g.Certificate.NotAfter),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it stands right above what is issued
		SubjectKeyId:          ownID,
		AuthorityKeyId:        oldID,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, old.Certificate, g.Certificate.PublicKey, old.key)
	if err != nil {
		return nil, fmt.Errorf("cross-signing: %w", err)
	}
	cross, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cross-signing: %w", err)
	}
	if !bytes.Equal(cross.RawSubject, g.Certificate.RawSubject) || !bytes.Equal(cross.RawSubjectPublicKeyInfo, g.Certificate.RawSubjectPublicKeyInfo) ||
		!cross.IsCA || cross.CheckSignatureFrom(old.Certificate) != nil {
		return nil, errors.New("cross-signing: what was signed does not lead from the new CA to the old one")
	}
	crossed := *g
	crossed.Cross = cross
	return &crossed, nil
}

func latest(times ...time.Time) time.Time {
	last := times[0]
	for _, t := range times[1:] {
		if t.After(last) {
			last = t
		}
	}
	return last
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
