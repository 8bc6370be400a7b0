package sshfront

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/durable"
)

// Profile is a choice of algorithms.
type Profile string

const (
	// Compatible lets in every client since OpenSSH 6.7 and its peers.
	Compatible Profile = "compatible"
	// Strict asks for a key exchange that a quantum computer does not break:
	// OpenSSH 9.9 and later.
	Strict Profile = "strict"
)

// config gives the transport's algorithms, in order of preference.
func (p Profile) config() ssh.Config {
	c := ssh.Config{
		KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519},
		Ciphers: []string{
			ssh.CipherAES256GCM, ssh.CipherAES128GCM, ssh.CipherAES256CTR, ssh.CipherAES192CTR, ssh.CipherAES128CTR,
		},
		MACs: []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM},
	}
	if p == Compatible {
		c.KeyExchanges = append(c.KeyExchanges, ssh.KeyExchangeCurve25519)
		c.Ciphers = slices.Insert(c.Ciphers, 0, ssh.CipherChaCha20Poly1305)
	}
	return c
}

// signatures are the algorithms that clients may prove their key with. SHA-1
// (ssh-rsa) and DSA, which the library would accept, are not among them.
var signatures = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// check refuses a profile with an algorithm that the library does not have
// here: it would drop the name without a word.
func (p Profile) check() error {
	if p != Compatible && p != Strict {
		return fmt.Errorf("the SSH profile is compatible or strict, not %q", p)
	}
	return available(p.config(), signatures)
}

func available(want ssh.Config, signatures []string) error {
	have := ssh.SupportedAlgorithms()
	for _, list := range []struct{ want, have []string }{
		{want.KeyExchanges, have.KeyExchanges},
		{want.Ciphers, have.Ciphers},
		{want.MACs, have.MACs},
		{signatures, have.PublicKeyAuths},
	} {
		for _, name := range list.want {
			if !slices.Contains(list.have, name) {
				return fmt.Errorf("SSH algorithm %s is not available (in FIPS mode use ssh_profile: strict)", name)
			}
		}
	}
	return nil
}

// minHostRSABits is what scanners and OpenSSH's own policies ask of RSA.
const minHostRSABits = 4096

// LoadHostKey reads the server's private key, OpenSSH or PEM format, mode 0600:
// Ed25519, or RSA of 4096 bits for clients that know no other. It never makes
// one.
func LoadHostKey(path string) (ssh.Signer, error) {
	data, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the SSH host key: %w: restore it from a backup, since clients know the signer by it; for a new signer: ssh-keygen -t ed25519 -N '' -f %s, and chown it to its user", err, path)
	} else if err != nil {
		return nil, fmt.Errorf("reading the SSH host key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		// Not the parser's own words: they could quote the key.
		return nil, fmt.Errorf("%s is not an SSH private key without passphrase: ssh-keygen -t ed25519 -N '' -f %s", path, path)
	}
	switch signer.PublicKey().Type() {
	case ssh.KeyAlgoED25519:
		return signer, nil
	case ssh.KeyAlgoRSA:
		key, _ := signer.PublicKey().(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey)
		algorithms, ok := signer.(ssh.AlgorithmSigner)
		if !ok || key == nil || key.N.BitLen() < minHostRSABits {
			return nil, fmt.Errorf("%s: an RSA host key needs %d bits; better use Ed25519", path, minHostRSABits)
		}
		return ssh.NewSignerWithAlgorithms(algorithms, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	}
	return nil, errors.New(path + ": the SSH host key must be Ed25519, or RSA: ssh-keygen -t ed25519 -N '' -f " + path)
}
