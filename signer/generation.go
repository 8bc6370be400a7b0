package signer

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Role is what a generation of the CA does at present.
type Role string

// The roles there are.
const (
	Active   Role = "active"   // signs, and is trusted
	Passive  Role = "passive"  // is trusted
	Inactive Role = "inactive" // neither
)

// Generation is one key of the CA with its certificate.
type Generation struct {
	ID          string // the first 8 hex digits of the key identifier
	Role        Role
	Certificate *x509.Certificate
	Cross       *x509.Certificate // for the same key by the generation before it; nil: none

	key crypto.Signer
}

// Fingerprint is the lower-case hex SHA-256 of the certificate's DER.
func (g *Generation) Fingerprint() string { return Fingerprint(g.Certificate) }

// From is since when anybody accepts what it signs.
func (g *Generation) From() time.Time {
	if g.Cross == nil {
		return g.Certificate.NotBefore
	}
	return latest(g.Certificate.NotBefore, g.Cross.NotBefore)
}

// Fingerprint is how a CA's certificate is named: the lower-case hex SHA-256 of
// its DER.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// chain gives what goes with a certificate that the generation signed, PEM: with it
// the certificate leads to the CA before this one too.
func (g *Generation) chain() []byte {
	if g.Cross == nil {
		return nil
	}
	return EncodeCertificate(g.Cross.Raw)
}

// as gives the generation in another role.
func (g *Generation) as(role Role) *Generation {
	other := *g
	other.Role = role
	return &other
}

// checkCA refuses a certificate and key that cannot act as a CA.
func checkCA(certificate *x509.Certificate, key crypto.Signer) error {
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(key.Public()):
		return errors.New("the key is not the certificate's: take the two from the same place")
	case !certificate.BasicConstraintsValid || !certificate.IsCA:
		return errors.New("the certificate is not a CA's: its basic constraints lack CA:TRUE")
	case certificate.KeyUsage != 0 && certificate.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the certificate's key usage lacks keyCertSign")
	case !selfSigned(certificate):
		return errors.New("the certificate is not self-signed: clients of etcd need the root itself")
	}
	return checkPublicKey(certificate.PublicKey)
}

// ErrEarly is wrapped where a CA is not valid yet: its time, or this machine's clock, is
// still to come right.
var ErrEarly = errors.New("the CA is not valid yet")

// checkLife refuses a CA that is not valid at now.
func checkLife(certificate *x509.Certificate, now time.Time) error {
	switch {
	case now.After(certificate.NotAfter):
		return fmt.Errorf("the CA expired at %s: no certificate it signs is accepted by anybody", certificate.NotAfter.Format(time.RFC3339))
	case now.Before(certificate.NotBefore):
		return fmt.Errorf("%w: it is from %s on, and here it is %s: check the clock", ErrEarly,
			certificate.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// selfSigned looks past a weak hash: nobody relies on a root's signature of
// itself, and old roots have SHA-1 there.
func selfSigned(certificate *x509.Certificate) bool {
	if !bytes.Equal(certificate.RawSubject, certificate.RawIssuer) {
		return false
	}
	err := certificate.CheckSignatureFrom(certificate)
	_, weak := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || weak
}
