package member

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// maker is a CA as operators make them.
type maker struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newMaker(t *testing.T, name string) *maker {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &maker{sign(t, template, template, key.Public(), key), key}
}

func sign(t *testing.T, template, issuer *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate that change has changed.
func (m *maker) issue(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "infra0"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.12")}, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	return sign(t, template, m.certificate, key.Public(), m.key)
}

// write puts a member's files into a directory of their own.
func write(t *testing.T, key crypto.Signer, certificate *x509.Certificate, cas ...*x509.Certificate) config.MemberFiles {
	t.Helper()
	dir := t.TempDir()
	files := config.MemberFiles{Certificate: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), Trust: filepath.Join(dir, "ca")}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var bundle []byte
	for _, ca := range cas {
		bundle = append(bundle, signer.EncodeCertificate(ca.Raw)...)
	}
	for path, data := range map[string][]byte{
		files.Certificate: signer.EncodeCertificate(certificate.Raw), files.Trust: bundle,
		files.Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// chmod gives a member's key another mode.
func chmod(t *testing.T, files config.MemberFiles, mode os.FileMode) config.MemberFiles {
	t.Helper()
	if err := os.Chmod(files.Key, mode); err != nil {
		t.Fatal(err)
	}
	return files
}

// Certificates that an operator supplies are refused with the reason, in words
// that say what to do; their neighbours pass.
func TestCheckSupplied(t *testing.T) {
	ca, same, other := newMaker(t, "etcd-ca"), newMaker(t, "etcd-ca"), newMaker(t, "other-ca")
	key := newKey(t)
	address, err := wire.ParseAddress("10.0.0.12")
	if err != nil {
		t.Fatal(err)
	}
	good := ca.issue(t, key, nil)
	serverOnly := ca.issue(t, key, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	for name, test := range map[string]struct {
		client, peer config.MemberFiles
		says         []string // none: it passes
	}{
		"one for both":                  {write(t, key, good, ca.certificate), config.MemberFiles{}, nil},
		"two":                           {write(t, key, serverOnly, ca.certificate), write(t, key, good, other.certificate, ca.certificate), nil},
		"a server's by a CA of its own": {write(t, key, other.issue(t, key, nil), ca.certificate), write(t, key, good, ca.certificate), nil},
		"a peer's by a CA of its own": {write(t, key, good, ca.certificate), write(t, key, other.issue(t, key, nil), ca.certificate),
			[]string{"peer port's", `"CN=other-ca" is not trusted here`}},
		"a peer's for servers only": {write(t, key, good, ca.certificate), write(t, key, serverOnly, ca.certificate),
			[]string{"peer port's", "lacks clientAuth"}},
		"for clients only": {write(t, key, ca.issue(t, key, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), ca.certificate), config.MemberFiles{},
			[]string{"client port's", "lacks serverAuth"}},
		"for another key": {write(t, newKey(t), good, ca.certificate), config.MemberFiles{}, []string{"for another key"}},
		"expired": {write(t, key, ca.issue(t, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), ca.certificate), config.MemberFiles{},
			[]string{"expired at", "the clock says"}},
		"not valid yet": {write(t, key, ca.issue(t, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), ca.certificate), config.MemberFiles{},
			[]string{"valid only from", "timedatectl"}},
		"for another address": {write(t, key, ca.issue(t, key, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("10.0.0.13")} }), ca.certificate), config.MemberFiles{},
			[]string{"valid for 10.0.0.13, not 10.0.0.12", "the others dial 10.0.0.12"}},
		"without names": {write(t, key, ca.issue(t, key, func(c *x509.Certificate) { c.IPAddresses = nil }), ca.certificate), config.MemberFiles{}, []string{"10.0.0.12"}},
		"by a CA that was made anew": {write(t, key, good, same.certificate), config.MemberFiles{},
			[]string{"has another key", "made anew", signer.Fingerprint(same.certificate)}},
		"by another CA":   {write(t, key, good, other.certificate), config.MemberFiles{}, []string{`"CN=etcd-ca" is not trusted here`, "CN=other-ca"}},
		"a group's key":   {chmod(t, write(t, key, good, ca.certificate), 0o640), config.MemberFiles{}, nil},
		"everybody's key": {chmod(t, write(t, key, good, ca.certificate), 0o644), config.MemberFiles{}, []string{"lets everybody at a private key"}},
		"with no CA":      {write(t, key, good, good), config.MemberFiles{}, []string{"is not a CA"}},
		"missing":         {config.MemberFiles{Certificate: "/nothing/crt", Key: "/nothing/key", Trust: "/nothing/ca"}, config.MemberFiles{}, []string{"/nothing/crt", "/nothing/key", "/nothing/ca"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &config.Member{Cluster: "prod-a", Addresses: []wire.Address{address}, Client: test.client, Peer: test.peer}
			if test.peer == (config.MemberFiles{}) {
				m.Peer = m.Client
			}
			err := CheckSupplied(m, time.Now())
			if (err == nil) != (test.says == nil) {
				t.Fatal(err)
			}
			for _, says := range test.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%q is not in %v", says, err)
				}
			}
		})
	}
}

// What leaves the machine has nothing of the private key in it, whatever made the
// key.
func TestRequest(t *testing.T) {
	ca := newMaker(t, "etcd-ca")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey := newKey(t)
	ecSecret, err := ecKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key    crypto.Signer
		secret []byte
	}{{ecKey, ecSecret}, {rsaKey, rsaKey.D.Bytes()}, {edKey, edKey.Seed()}} {
		files := Files(write(t, test.key, ca.issue(t, test.key, nil), ca.certificate))
		request, err := files.Request()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := signer.ParseRequest(request)
		if err != nil {
			t.Fatal(err)
		}
		if public, err := signer.PublicKeyOf(test.key.Public()); err != nil || parsed.Key().Fingerprint() != public.Fingerprint() {
			t.Errorf("%T: the request is for another key: %v", test.key, err)
		}
		if keys, err := files.SSHKeys(); err != nil || len(keys) != 1 {
			t.Errorf("%T is no way in: %v", test.key, err)
		}
		if block, _ := pem.Decode(request); bytes.Contains(block.Bytes, test.secret) || bytes.Contains(request, []byte("PRIVATE")) {
			t.Errorf("%T: the request has the private key in it", test.key)
		}
	}
}
