package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
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
func SuppliedSuccessor(data []byte, now time.Time) (*Generation, error) {
	certPEM, keyPEM, err := splitPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	g, err := newGeneration(certPEM, keyPEM, Passive)
	if err == nil {
		err = g.checkUse(now)
	}
	if err == nil && !outlives(g, now, successorLife) {
		err = fmt.Errorf("the CA expires at %s: it must outlive the members' certificates by far", g.Certificate.NotAfter.Format(time.RFC3339))
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

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// successorLife is what a CA that is to follow another one must have before it: time for
// the rotation, and for what it signs.
const successorLife = 3 * memberLife

// outlives says whether a CA is valid for longer than a life that begins now.
func outlives(g *Generation, now time.Time, life time.Duration) bool {
	return g.Certificate.NotAfter.After(now.Add(life))
}

// checkUse refuses a CA that is not valid at now, or whose own certificate forbids what
// it is to sign: by name constraints, usages or an extension that verifiers do not know.
// With a cross certificate that would show only when the CA before it is gone.
func (g *Generation) checkUse(now time.Time) error {
	if err := checkLife(g.Certificate, now); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	trial := &x509.Certificate{
		SerialNumber: serial, NotBefore: latest(now.Add(-backdate), g.Certificate.NotBefore), NotAfter: now.Add(time.Second),
		ExtKeyUsage: member.extended, DNSNames: []string{"localhost", PeerName("trial")},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, URIs: []*url.URL{DefaultIdentity("trial").of(member.role, "trial")},
	}
	der, err := x509.CreateCertificate(rand.Reader, trial, g.Certificate, key.Public(), g.key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(g.Certificate)
	for _, usage := range member.extended {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return fmt.Errorf("what it signs would not be accepted: %v", err)
		}
	}
	return nil
}
