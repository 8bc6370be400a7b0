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

	key crypto.Signer
}

// Fingerprint is the lower-case hex SHA-256 of the certificate's DER.
func (g *Generation) Fingerprint() string { return Fingerprint(g.Certificate) }

// Fingerprint is how a CA's certificate is named: the lower-case hex SHA-256 of
// its DER.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// checkSet holds a set of generations to the invariant of roles: exactly one
// is active, at most one passive, and no two bear the same name, since TLS
// announces trust by name (RFC 8446, 4.2.4).
func checkSet(generations []*Generation) error {
	count := map[Role]int{}
	names := map[string]bool{}
	for _, g := range generations {
		switch g.Role {
		case Active, Passive, Inactive:
			count[g.Role]++
		default:
			return fmt.Errorf("generation %s has the unknown role %q", g.ID, g.Role)
		}
		subject := string(g.Certificate.RawSubject)
		if names[subject] {
			return fmt.Errorf("two generations are called %q", g.Certificate.Subject)
		}
		names[subject] = true
	}
	if count[Active] != 1 || count[Passive] > 1 {
		return fmt.Errorf("%d generations are active and %d passive; one is active and at most one passive", count[Active], count[Passive])
	}
	return nil
}

// checkCA refuses a certificate and key that cannot act as a CA at now.
func checkCA(certificate *x509.Certificate, key crypto.Signer, now time.Time) error {
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
	case now.After(certificate.NotAfter):
		return fmt.Errorf("the CA expired at %s: no certificate it signs is accepted by anybody", certificate.NotAfter.Format(time.RFC3339))
	case now.Before(certificate.NotBefore):
		return fmt.Errorf("the CA is valid only from %s on, and here it is %s: check the clock",
			certificate.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return checkPublicKey(certificate.PublicKey)
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
