// Package member is this machine as a member of the etcd cluster: the key and
// the certificates that it shows, the CAs that it trusts, and which of them its etcd
// has to have loaded. It writes one file, the note of those that need not be.
package member

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// EtcdUnit is etcd's unit.
const EtcdUnit = "etcd.service"

// The units of signerd: the daemon, on the machine that signs, and signerd sync.
const (
	SignerUnit  = "signerd.service"
	SyncTimer   = "signerd-sync.timer"
	SyncService = "signerd-sync.service"
)

// etcd's ports, as everybody has them.
const (
	ClientPort  = "2379"
	PeerPort    = peers.PeerPort
	MetricsPort = "2381"
)

// MaxSkew is how far this machine's clock may be from the signer's: a certificate begins
// five minutes before it is signed.
const MaxSkew = time.Minute

// LocalEndpoint is the client URL of the etcd on this machine.
const LocalEndpoint = "https://127.0.0.1:" + ClientPort

// ClientURL is where clients find the etcd of a member.
func ClientURL(host string) string { return "https://" + net.JoinHostPort(host, ClientPort) }

// Addresses are where a member's etcd serves, the client port first.
func Addresses(host string) (client, peer string) {
	return net.JoinHostPort(host, ClientPort), net.JoinHostPort(host, PeerPort)
}

// Files are where a member's etcd finds its certificate, PEM with what it needs
// below it, the key of it, and the bundle of CAs that it trusts.
type Files struct{ Certificate, Key, Trust string }

// Standard are the files that first-boot makes, for both of etcd's ports.
var Standard = Files(config.StandardFiles)

// LoadKey reads the private key, which nobody but its owner may read. That it
// is missing is fs.ErrNotExist.
func (f Files) LoadKey() (crypto.Signer, error) {
	data, err := durable.ReadSecret(f.Key)
	if err != nil {
		return nil, err
	}
	return f.parseKey(data)
}

func (f Files) parseKey(data []byte) (crypto.Signer, error) {
	key, err := signer.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Key, err)
	}
	return key, nil
}

// SSHKeys are the key as a way in at the signer.
func (f Files) SSHKeys() ([]ssh.Signer, error) {
	key, err := f.LoadKey()
	if err != nil {
		return nil, err
	}
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Key, err)
	}
	return []ssh.Signer{s}, nil
}

// Request makes a certificate signing request for the key, PEM. Only its key
// counts.
func (f Files) Request() ([]byte, error) {
	key, err := f.LoadKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// Chain reads the certificate, first, and what it needs below it.
func (f Files) Chain() ([]*x509.Certificate, error) { return signer.ReadCertificates(f.Certificate) }

// CAs reads the bundle.
func (f Files) CAs() ([]*x509.Certificate, error) { return signer.ReadCertificates(f.Trust) }

// Pair reads the certificate and its key as something to show.
func (f Files) Pair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

// Credentials are the member's own, for its questions to etcd.
func (f Files) Credentials() (peers.Credentials, error) {
	pair, err := f.Pair()
	if err != nil {
		return peers.Credentials{}, err
	}
	cas, err := f.CAs()
	if err != nil {
		return peers.Credentials{}, err
	}
	return peers.Credentials{
		Roots:       func() *x509.CertPool { return Pool(cas) },
		Certificate: func(context.Context) (*tls.Certificate, error) { return pair, nil },
	}, nil
}

// Pool makes CAs something to verify by.
func Pool(cas []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range cas {
		pool.AddCert(c)
	}
	return pool
}

// Fits says whether a certificate is for a key.
func Fits(c *x509.Certificate, key crypto.Signer) error {
	public, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return errors.New("the certificate is for another key")
	}
	return nil
}

// Fingerprints gives the lower-case hex SHA-256 of the DER of each certificate
// of a bundle, PEM.
func Fingerprints(bundle []byte) ([]string, error) {
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
