package bootstrap

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// makeKey makes the member's private key. One that is there is kept: it has
// never left this machine, and a name belongs to one key.
func makeKey() (string, error) {
	if _, err := loadKey(); err == nil {
		return "it is there", nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := errors.Join(makePKIDir(), sweepKeys()); err != nil {
		return "", err
	}
	owner, err := ownerOf("etcd")
	if err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return memberKey, durable.CreateFor(owner, memberKey, block, 0o600)
}

// sweepKeys removes keys that a crash left under the names at which they were
// staged.
func sweepKeys() error {
	staged, err := filepath.Glob(filepath.Join(pkiDir, "."+filepath.Base(memberKey)+"*"))
	for _, path := range staged {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func makePKIDir() error {
	return errors.Join(makeDir(filepath.Dir(pkiDir)), makeDir(pkiDir))
}

func loadKey() (*ecdsa.PrivateKey, error) {
	data, err := durable.ReadSecret(memberKey)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s is not one PEM block", memberKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", memberKey, err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not the kind of key that first-boot makes", memberKey)
	}
	return private, nil
}

// requestFor makes the member's certificate signing request, PEM. Only its key
// counts.
func requestFor(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ownRequest is requestFor the key that is there.
func ownRequest() ([]byte, error) {
	key, err := loadKey()
	if err != nil {
		return nil, err
	}
	return requestFor(key)
}

// memberSSHKey is the member's key as a way in at the signer.
func memberSSHKey() ([]ssh.Signer, error) {
	key, err := loadKey()
	if err != nil {
		return nil, err
	}
	s, err := ssh.NewSignerFromKey(key)
	return []ssh.Signer{s}, err
}

// checkChain says why a certificate, PEM with what it needs below it, is not one
// for this member by a CA of the bundle.
func (p *plan) checkChain(chain, bundle []byte, now time.Time) error {
	certificates, err := signer.ParseCertificates(chain)
	if err != nil {
		return err
	}
	key, err := loadKey()
	if err != nil {
		return err
	}
	leaf := certificates[0]
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !key.PublicKey.Equal(public) {
		return errors.New("the certificate is for another key")
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		DNSName: signer.PeerName(p.Cluster), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	options.Roots.AppendCertsFromPEM(bundle)
	for _, c := range certificates[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(options); err != nil {
		return err
	}
	for _, a := range p.Addresses {
		if err := leaf.VerifyHostname(a.String()); err != nil {
			return err
		}
	}
	return nil
}

// hasCertificate says whether the certificate that is there will do.
func (p *plan) hasCertificate(now time.Time) bool {
	chain, err := os.ReadFile(memberCert)
	if err != nil {
		return false
	}
	bundle, err := os.ReadFile(bundlePath)
	return err == nil && p.checkChain(chain, bundle, now) == nil
}

// fingerprints gives the lower-case hex SHA-256 of each certificate's DER.
func fingerprints(bundle []byte) ([]string, error) {
	certificates, err := signer.ParseCertificates(bundle)
	if err != nil {
		return nil, err
	}
	prints := make([]string, 0, len(certificates))
	for _, c := range certificates {
		prints = append(prints, signer.Fingerprint(c))
	}
	return prints, nil
}

// credentials are the member's own, for its questions to etcd.
func credentials() (peers.Credentials, error) {
	pair, err := tls.LoadX509KeyPair(memberCert, memberKey)
	if err != nil {
		return peers.Credentials{}, err
	}
	bundle, err := os.ReadFile(bundlePath)
	if err != nil {
		return peers.Credentials{}, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return peers.Credentials{
		Roots:       roots,
		Certificate: func(context.Context) (*tls.Certificate, error) { return &pair, nil },
	}, nil
}

// localEndpoint is the client URL of the etcd on this machine.
const localEndpoint = "https://127.0.0.1:" + clientPort
