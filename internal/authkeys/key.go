package authkeys

import (
	"crypto/rsa"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// minListedRSABits is the smallest RSA key that may be listed.
const minListedRSABits = 3072

// maxRSABits bounds the work that a signature check can cost.
const maxRSABits = 16384

// keyTypes are the kinds of key that may log in.
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoRSA,
}

// isKeyType holds for words that can only be meant as a key's type: a line with
// one that may not log in is refused for that, not for its options.
func isKeyType(word string) bool {
	switch word {
	case ssh.CertAlgoRSAv01, ssh.CertAlgoED25519v01, ssh.CertAlgoSKED25519v01,
		ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoSKECDSA256v01,
		"ssh-dss":
		return true
	}
	return slices.Contains(keyTypes, word)
}

// CheckKey refuses a key of a kind that may not log in, and an RSA key below
// minRSABits.
func CheckKey(key ssh.PublicKey, minRSABits int) error {
	if !slices.Contains(keyTypes, key.Type()) {
		return fmt.Errorf("a key of type %s may not log in; use ssh-keygen -t ed25519", key.Type())
	}
	if key.Type() != ssh.KeyAlgoRSA {
		return nil
	}
	public := key.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey)
	if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return fmt.Errorf("an RSA key has %d to %d bits here, this one %d; use ssh-keygen -t ed25519", minRSABits, maxRSABits, bits)
	}
	return nil
}
