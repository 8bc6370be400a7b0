// Package sign is the least that a certificate like signerd's costs a Go
// program: check the request's signature, sign. The servers that signerd is
// measured against do this and nothing else with what they get.
package sign

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"math/big"
	"net/url"
	"os"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxRequest is what signerd takes too.
const maxRequest = 64 << 10

// CA signs.
type CA struct{ pair tls.Certificate }

// Setup is what a server that signs is told on its command line.
type Setup struct {
	Listen    string // address
	HostKey   string // private key file
	ClientKey ssh.PublicKey
	CA        *CA
}

// ReadFlags reads the command line and the files that it names.
func ReadFlags() (*Setup, error) {
	var s Setup
	flag.StringVar(&s.Listen, "listen", "", "address")
	flag.StringVar(&s.HostKey, "host-key", "", "private key file")
	clientKey := flag.String("client-key", "", "public key file of who may log in")
	caCert, caKey := flag.String("ca-cert", "", "PEM"), flag.String("ca-key", "", "PEM")
	flag.Parse()
	pair, err := tls.LoadX509KeyPair(*caCert, *caKey)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(*clientKey)
	if err != nil {
		return nil, err
	}
	s.CA = &CA{pair}
	s.ClientKey, _, _, _, err = ssh.ParseAuthorizedKey(data)
	return &s, err
}

// Certificate reads base64 of a PEM request and gives a certificate with what
// signerd's have in them.
func (ca *CA) Certificate(name string, stdin io.Reader) ([]byte, error) {
	text, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, io.LimitReader(stdin, maxRequest)))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	keyID := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"prod-a"}, CommonName: name},
		DNSNames:     []string{name},
		URIs:         []*url.URL{{Scheme: "etcd", Host: "prod-a.etcd.internal", Path: "/client/" + name}},
		SubjectKeyId: keyID[:20],
		NotBefore:    now.Add(-5 * time.Minute), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, ca.pair.Leaf, request.PublicKey, ca.pair.PrivateKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
