package peers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate that is its own CA.
func selfSigned(t *testing.T, name string, until time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: c}
}

// What a port serves and trusts is seen, whatever it is, with a certificate to
// show or without.
func TestInspect(t *testing.T) {
	later := time.Now().Add(time.Hour)
	shown, expired := selfSigned(t, "new", later), selfSigned(t, "infra0", time.Now().Add(-time.Second))
	ca, old, more := shown.Leaf, selfSigned(t, "old", later).Leaf, selfSigned(t, "more", later).Leaf
	trusted := x509.NewCertPool()
	trusted.AddCert(ca)
	trusted.AddCert(old)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{
			MinVersion: version, MaxVersion: version, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted,
			Certificates: []tls.Certificate{*expired},
		}
		address := serve(t, config)
		for _, show := range []*tls.Certificate{nil, shown} {
			s, err := Inspect(t.Context(), address, show)
			if err != nil {
				t.Fatal(err)
			}
			if !s.Chain[0].Equal(expired.Leaf) {
				t.Error("it serves another certificate")
			}
			for _, test := range []struct {
				bundle         []*x509.Certificate
				extra, missing string
			}{
				{[]*x509.Certificate{ca, old}, "", ""},
				{[]*x509.Certificate{old, ca}, "", ""},
				{[]*x509.Certificate{ca}, "CN=old", ""},
				{[]*x509.Certificate{ca, old, more}, "", "CN=more"},
				{[]*x509.Certificate{more, ca}, "CN=old", "CN=more"},
			} {
				extra, missing := s.Difference(test.bundle)
				if strings.Join(extra, ",") != test.extra || strings.Join(missing, ",") != test.missing {
					t.Errorf("too much %v, too little %v; want %q and %q", extra, missing, test.extra, test.missing)
				}
			}
		}
		open := config.Clone()
		open.ClientAuth = tls.NoClientCert
		if _, err := Inspect(t.Context(), serve(t, open), nil); err == nil || !strings.Contains(err.Error(), "client-cert-auth") {
			t.Errorf("a port that lets everybody in: %v", err)
		}
	}
	if _, err := Inspect(t.Context(), "127.0.0.1:1", nil); err == nil {
		t.Error("nobody is there")
	}
}

// serve makes handshakes until the test ends.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake() // it may be refused
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

// A port admits who shows what it trusts, refuses another CA, and whoever has expired by
// its clock is told so.
func TestAdmits(t *testing.T) {
	later := time.Now().Add(time.Hour)
	trusted, expired, foreign := selfSigned(t, "trusted", later), selfSigned(t, "expired", time.Now().Add(-time.Minute)), selfSigned(t, "foreign", later)
	cas := x509.NewCertPool()
	cas.AddCert(trusted.Leaf)
	cas.AddCert(expired.Leaf)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: cas}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for _, test := range []struct {
		show     *tls.Certificate
		admitted bool
		err      error
	}{{trusted, true, nil}, {foreign, false, nil}, {expired, false, ErrClock}} {
		admitted, err := Admits(t.Context(), server.Listener.Addr().String(), Credentials{
			Roots:       func() *x509.CertPool { return roots },
			Certificate: func(context.Context) (*tls.Certificate, error) { return test.show, nil },
		})
		if admitted != test.admitted || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, %v", test.show.Leaf.Subject, admitted, err)
		}
	}
}
