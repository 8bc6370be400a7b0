package signer

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
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"testing"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func newRequestDER(key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "anything"}}
	if change != nil {
		change(template)
	}
	return must(x509.CreateCertificateRequest(rand.Reader, template, key))
}

func requestPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func wrap(data []byte, width int, end string) []byte {
	var b strings.Builder
	for text := base64.StdEncoding.EncodeToString(data); text != ""; {
		n := min(width, len(text))
		b.WriteString(text[:n] + end)
		text = text[n:]
	}
	return []byte(b.String())
}

var p256Key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))

// All keys that are signed, and every form a request may come in.
func TestParseRequest(t *testing.T) {
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]crypto.Signer{
		"P-256":    p256Key,
		"P-384":    must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"P-521":    must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"Ed25519":  edKey,
		"RSA-2048": must(rsa.GenerateKey(rand.Reader, 2048)),
		"RSA-3072": must(rsa.GenerateKey(rand.Reader, 3072)),
	} {
		der := newRequestDER(key, nil)
		text := requestPEM(der)
		for form, data := range map[string][]byte{
			"PEM":                      text,
			"PEM with CRLF":            bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
			"PEM after text":           append([]byte("Certificate Request:\n    Data:\n"), text...),
			"PEM before blanks":        append(bytes.Clone(text), "\n \r\n"...),
			"PEM as old openssl":       bytes.ReplaceAll(text, []byte("CERTIFICATE REQUEST"), []byte("NEW CERTIFICATE REQUEST")),
			"base64 of PEM":            wrap(text, 76, "\n"),
			"flat base64 of PEM":       wrap(text, len(text)*2, ""),
			"base64 of PEM with CRLF":  wrap(text, 76, "\r\n"),
			"base64 of PEM, 64 wide":   wrap(text, 64, "\n"),
			"base64 of DER":            wrap(der, 76, "\n"),
			"flat base64 of DER":       wrap(der, len(der)*2, "\n"),
			"base64 with blanks":       append([]byte(" \t"), wrap(der, 40, " \n")...),
			"base64 of PEM after text": wrap(append([]byte("text\n"), text...), 76, "\n"),
		} {
			request, err := ParseRequest(data)
			if err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
				continue
			}
			want := must(x509.MarshalPKIXPublicKey(key.Public()))
			if !bytes.Equal(request.Key().spki, want) {
				t.Errorf("%s, %s: another key", name, form)
			}
		}
	}
}

var rsa2048 = must(rsa.GenerateKey(rand.Reader, 2048))

// What a request says of itself changes nothing in what is signed: a CA, other
// names, usages.
func TestRequestExtensionsAreIgnored(t *testing.T) {
	s := newTestSigner(t, "")
	plain := must(ParseRequest(requestPEM(newRequestDER(p256Key, nil))))
	pushy := must(ParseRequest(requestPEM(newRequestDER(p256Key, func(c *x509.CertificateRequest) {
		c.Subject = pkix.Name{CommonName: "root", Organization: []string{"system:masters"}}
		c.DNSNames = []string{PeerName("prod-a")}
		c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
	}))))
	var described []string
	for _, request := range []Request{plain, pushy} {
		issued, err := s.Issue(t.Context(), noon, Order{Subject: must(everyClient.Subject("kubemaster-01")), Key: request.Key()})
		if err != nil {
			t.Fatal(err)
		}
		described = append(described, describe(must(ParseCertificates(issued.PEM))[0], s.authority.Active().Certificate))
	}
	if described[0] != described[1] {
		t.Errorf("a request's own wishes changed its certificate:\n%s", described[1])
	}
}

// FuzzParseRequest: what is accepted is a key that is signed, and the same
// request comes through every form it may be sent in.
func FuzzParseRequest(f *testing.F) {
	der := newRequestDER(p256Key, nil)
	f.Add(requestPEM(der))
	f.Add(wrap(der, 76, "\r\n"))
	f.Add(wrap(requestPEM(der), 64, "\n"))
	for _, class := range hostile() {
		for _, bad := range class.bad {
			if len(bad) < 4096 {
				f.Add(bad)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		request, err := ParseRequest(data)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Fatalf("%v is of no class", err)
			}
			return
		}
		if err := checkPublicKey(request.key.key); err != nil {
			t.Fatalf("accepted: %v", err)
		}
		if again, err := ParseRequest(wrap(data, 76, "\n")); len(data) < 40000 && bytes.Contains(data, []byte(pemBegin)) &&
			(err != nil || again.Key().Fingerprint() != request.Key().Fingerprint()) {
			t.Fatalf("base64 of an accepted request: %v", err)
		}
	})
}
