package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync"
)

// PublicKey is a public key that may stand in a certificate.
type PublicKey struct {
	key  crypto.PublicKey
	spki []byte // SubjectPublicKeyInfo, DER (RFC 5280, 4.1.2.7)
}

// PublicKeyOf checks a public key. The error wraps ErrRequest.
func PublicKeyOf(key crypto.PublicKey) (PublicKey, error) {
	if err := checkPublicKey(key); err != nil {
		return PublicKey{}, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	return PublicKey{key, spki}, nil
}

// encodedPublicKey checks a public key that came as spki. A key has one encoding
// here, as it has one fingerprint. The error wraps ErrRequest.
func encodedPublicKey(key crypto.PublicKey, spki []byte) (PublicKey, error) {
	checked, err := PublicKeyOf(key)
	if err == nil && !bytes.Equal(checked.spki, spki) {
		err = fmt.Errorf("%w: the public key is not encoded as RFC 5280 has it (DER)", ErrRequest)
	}
	return checked, err
}

// Fingerprint is the lower-case hex SHA-256 of the SubjectPublicKeyInfo: how
// the ledger names a key.
func (k PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.spki)
	return hex.EncodeToString(sum[:])
}

// ID is the key identifier: the leftmost 160 bits of the SHA-256 of the
// subjectPublicKey BIT STRING (RFC 7093, 2, method 1).
func (k PublicKey) ID() []byte {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(k.spki, &info); err != nil {
		panic(fmt.Sprintf("signer: a checked key does not parse: %v", err))
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20]
}

// Bounds of an RSA modulus in bits: below, it is weak; above, verifying costs
// everybody too much.
const (
	MinRSABits = 2048
	maxRSABits = 8192
)

// smallPrimes is the product of the odd primes below 752, that no RSA modulus
// may share a factor with (the Baseline Requirements, 6.1.6, of the CA/Browser
// Forum).
var smallPrimes = sync.OnceValue(func() *big.Int {
	product := big.NewInt(1)
	for n := int64(3); n < 752; n += 2 {
		if p := big.NewInt(n); p.ProbablyPrime(0) {
			product.Mul(product, p)
		}
	}
	return product
})

func checkPublicKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return checkRSA(key)
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("curve %s; use P-256", key.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("a public key of a kind that is not signed; use P-256, P-384, P-521, Ed25519 or RSA")
}

func checkRSA(key *rsa.PublicKey) error {
	switch bits := key.N.BitLen(); {
	case bits < MinRSABits || bits > maxRSABits:
		return fmt.Errorf("an RSA key of %d bits; use %d to %d", bits, MinRSABits, maxRSABits)
	case key.N.Bit(0) == 0, new(big.Int).GCD(nil, nil, key.N, smallPrimes()).Cmp(big.NewInt(1)) != 0:
		return fmt.Errorf("an RSA modulus with a small factor; make another key")
	case key.E < 65537 || key.E%2 == 0:
		// FIPS 186-5, A.1.1: the exponent is odd and above 2^16.
		return fmt.Errorf("an RSA key with public exponent %d; use 65537", key.E)
	}
	return nil
}
