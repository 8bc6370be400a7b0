package signer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// caLife is how long a CA made here is valid, in years.
const caLife = 10

// CAKeys are the kinds of key that a CA can be made with. P-384 costs twice
// the time for each certificate.
var CAKeys = map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384()}

// CreateAuthority makes a new CA for a cluster in dir, with a key of a kind
// that CAKeys lists. It never touches a CA that is there: the error is then
// fs.ErrExist.
func CreateAuthority(dir, cluster, kind string, now time.Time) (*Generation, error) {
	curve, ok := CAKeys[kind]
	if !ok {
		return nil, fmt.Errorf("a CA key is p256 or p384, not %q", kind)
	}
	g, err := newCA(cluster, curve, now)
	if err != nil {
		return nil, err
	}
	return g, writeAuthority(dir, g, time.Time{})
}

// newCA makes a CA with a new key.
func newCA(cluster string, curve elliptic.Curve, now time.Time) (*Generation, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the CA's key: %w", err)
	}
	public, err := PublicKeyOf(key.Public())
	if err != nil {
		return nil, fmt.Errorf("making the CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{cluster}, CommonName: cluster + "-ca-" + hex.EncodeToString(public.ID())[:8]},
		NotBefore:             now.Add(-backdate).Truncate(time.Second).UTC(),
		NotAfter:              now.AddDate(caLife, 0, 0).Truncate(time.Second).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          public.ID(),
		AuthorityKeyId:        public.ID(),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the CA's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signing the CA's certificate: %w", err)
	}
	return generationOf(certificate, key, Active)
}

// ImportAuthority takes a CA that was made elsewhere into dir: its certificate
// and its unencrypted key, PEM. It refuses what could not act as a CA, and like
// CreateAuthority never touches a CA that is there.
func ImportAuthority(dir string, certPEM, keyPEM []byte, now time.Time) (*Generation, error) {
	g, err := newGeneration(certPEM, keyPEM, Active)
	if err == nil {
		err = g.checkUse(now)
	}
	if err != nil {
		return nil, err
	}
	return g, writeAuthority(dir, g, now.UTC().Truncate(time.Second))
}

// CanCrossSign says whether the CA may sign another CA's certificate: the next
// generation's, in a rotation. One with pathlen:0 may not (RFC 5280, 4.2.1.9).
func (g *Generation) CanCrossSign() bool {
	return g.Certificate.MaxPathLen != 0 || !g.Certificate.MaxPathLenZero
}

// newSerial gives a positive random serial number of 128 bits; RFC 5280,
// 4.1.2.2 allows 20 octets.
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	for {
		serial, err := rand.Int(rand.Reader, limit)
		if err != nil {
			return nil, fmt.Errorf("drawing a serial number: %w", err)
		}
		if serial.Sign() > 0 {
			return serial, nil
		}
	}
}
