package bootstrap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/signer"
)

// makeKey makes the member's private key. One that is there is kept: it has
// never left this machine, and a name belongs to one key.
func makeKey() (string, error) {
	if _, err := own.LoadKey(); err == nil {
		return "it is there", nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := errors.Join(makePKIDir(), durable.Sweep(own.Key)); err != nil {
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
	return own.Key, durable.CreateFor(owner, own.Key, block, 0o600)
}

func makePKIDir() error {
	return errors.Join(makeDir(filepath.Dir(config.PKIDir)), makeDir(config.PKIDir))
}

// use is what this member's certificate must be good for.
func (p *plan) use() member.Use {
	return member.Use{PeerName: signer.PeerName(p.Cluster), Addresses: p.Addresses}
}

// checkChain says why a certificate, PEM with what it needs below it, is not one
// for this member by a CA of the bundle that is there.
func (p *plan) checkChain(chain []byte, now time.Time) error {
	certificates, err := signer.ParseCertificates(chain)
	if err != nil {
		return err
	}
	cas, err := own.CAs()
	if err != nil {
		return err
	}
	key, err := own.LoadKey()
	if err != nil {
		return err
	}
	return p.use().Check(certificates, cas, key, now)
}

// hasCertificate says whether the certificate that is there will do.
func (p *plan) hasCertificate(now time.Time) bool {
	chain, err := os.ReadFile(own.Certificate)
	return err == nil && p.checkChain(chain, now) == nil
}
