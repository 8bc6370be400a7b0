package signer

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// newTestSigner makes a signer with a fresh CA, at noon.
func newTestSigner(t testing.TB, identity string) *Signer {
	t.Helper()
	dir := t.TempDir()
	if _, err := CreateAuthority(filepath.Join(dir, "authority"), "prod-a", "p256", noon); err != nil {
		t.Fatal(err)
	}
	return openTestSigner(t, dir, identity, noon)
}

func openTestSigner(t testing.TB, dir, identity string, now time.Time) *Signer {
	t.Helper()
	id := DefaultIdentity("prod-a")
	if identity != "" {
		id = must(ParseIdentity(identity))
	}
	s, _, err := Open(Parts{
		Cluster: "prod-a", Identity: id, Authority: must(LoadAuthority(filepath.Join(dir, "authority"), now)),
		Ledger: filepath.Join(dir, "ledger"), Options: LedgerOptions{PerNamePerHour: 60},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func addresses(texts ...string) []wire.Address {
	var list []wire.Address
	for _, text := range texts {
		list = append(list, must(wire.ParseAddress(text)))
	}
	return list
}

var everyClient = Clients{must(wire.ParseGlob("*"))}

// describe dumps what is promised of a certificate: everything but serial
// number, keys and signature.
func describe(c, ca *x509.Certificate) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("version: %d", c.Version)
	line("serial number: %d bits or less", (c.SerialNumber.BitLen()+127)/128*128)
	line("subject: %s", c.Subject)
	line("issuer is the CA: %v", bytes.Equal(c.RawIssuer, ca.RawSubject))
	line("signature: %s", c.SignatureAlgorithm)
	line("not before: %s", c.NotBefore.Sub(noon))
	line("not after: %s", c.NotAfter.Sub(noon))
	line("public key: %s", c.PublicKeyAlgorithm)
	for _, e := range c.Extensions {
		switch e.Id[len(e.Id)-1] {
		case 14:
			line("extension %s: subject key identifier", e.Id)
		case 35:
			line("extension %s: authority key identifier is the CA's: %v", e.Id, bytes.Equal(c.AuthorityKeyId, ca.SubjectKeyId))
		default:
			line("extension %s critical=%v: %x", e.Id, e.Critical, e.Value)
		}
	}
	line("CA: %v", c.IsCA)
	line("key usage: %09b", c.KeyUsage)
	line("extended key usage: %v", c.ExtKeyUsage)
	line("DNS: %s", strings.Join(c.DNSNames, " "))
	line("IP: %v", c.IPAddresses)
	line("URI: %v", c.URIs)
	return b.String()
}

// The golden certificates: a change of what is issued changes a file here, and
// needs a line in NEWS.
func TestGoldenCertificates(t *testing.T) {
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	clientSubject := must(everyClient.Subject("kubemaster-07.example.com"))
	memberSubject := must(MemberSubject("etcd-1", addresses("10.0.0.11", "fd00::11", "db1.example.com", "127.0.0.1")))
	for _, test := range []struct {
		name     string
		identity string
		subject  Subject
		key      crypto.Signer
	}{
		{"client", "", clientSubject, p256Key},
		{"client-rsa", "", clientSubject, rsa2048},
		{"client-ed25519-spiffe", "spiffe://prod.example/etcd", clientSubject, edKey},
		{"client-netsy", "netsy://my-cluster", clientSubject, p256Key},
		{"member", "", memberSubject, p256Key},
		{"member-rsa", "", memberSubject, rsa2048},
		{"self", "", selfSubject(), p256Key},
	} {
		s := newTestSigner(t, test.identity)
		issued, err := s.Issue(t.Context(), noon, Order{Subject: test.subject, Key: must(PublicKeyOf(test.key.Public()))})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		certificates := must(ParseCertificates(issued.PEM))
		if len(certificates) != 1 {
			t.Errorf("%s: %d certificates", test.name, len(certificates))
		}
		golden(t, test.name, describe(certificates[0], s.authority.Active().Certificate))
	}
	for kind := range CAKeys {
		g, err := CreateAuthority(filepath.Join(t.TempDir(), "authority"), "prod-a", kind, noon)
		if err != nil {
			t.Fatal(err)
		}
		text := describe(g.Certificate, g.Certificate)
		golden(t, "ca-"+kind, strings.ReplaceAll(text, g.ID, "IIIIIIII"))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s is not what %s promises (%v):\n%s", name, path, err, got)
	}
}

// A certificate never outlives its issuer, and a CA about to expire says so.
func TestNeverPastTheIssuer(t *testing.T) {
	s := newTestSigner(t, "")
	ends := s.authority.Active().Certificate.NotAfter
	order := Order{Subject: must(everyClient.Subject("kubemaster-01")), Key: must(PublicKeyOf(p256Key.Public()))}
	if _, err := s.Issue(t.Context(), ends.Add(-client.life), order); err != nil {
		t.Errorf("a certificate that ends with its issuer: %v", err)
	}
	if _, err := s.Issue(t.Context(), ends.Add(-client.life+time.Second), order); !errors.Is(err, ErrRetry) || !strings.Contains(err.Error(), "rotate prepare") {
		t.Errorf("a certificate past its issuer: %v", err)
	}
	if n := s.ledger.Head().Seq; n != 2 {
		t.Errorf("the ledger has %d lines, want the first certificate and its mark", n)
	}
}

// Every lint can fail, for its own reason.
func TestLints(t *testing.T) {
	s := newTestSigner(t, "")
	ca := s.authority.Active()
	key := must(PublicKeyOf(p256Key.Public()))
	subject := must(MemberSubject("etcd-1", addresses("10.0.0.11")))
	template := func() *x509.Certificate {
		c := s.template(noon, subject, key, big.NewInt(12345))
		c.AuthorityKeyId = ca.Certificate.SubjectKeyId
		return c
	}
	signed := func(change func(*x509.Certificate)) *x509.Certificate {
		c := template()
		change(c)
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, ca.Certificate, key.key, ca.key))))
	}
	for _, l := range lints {
		if c := signed(func(*x509.Certificate) {}); !l.holds(ca.Certificate, template(), c) {
			t.Errorf("of a good certificate it is not true that it %s", l.sentence)
		}
	}
	broken := map[string]func(*x509.Certificate){
		"has its issuer's key":      func(c *x509.Certificate) { c.ExtraExtensions = raw(35, false, []byte{0x30, 4, 0x80, 2, 1, 2}) },
		"has a key identifier":      func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} },
		"is no CA":                  func(c *x509.Certificate) { c.IsCA = true },
		"has the serial number":     func(c *x509.Certificate) { c.SerialNumber = big.NewInt(12346) },
		"begins no earlier":         func(c *x509.Certificate) { c.NotBefore = ca.Certificate.NotBefore.Add(-time.Second) },
		"expires no later":          func(c *x509.Certificate) { c.NotAfter = ca.Certificate.NotAfter.Add(time.Second) },
		"has its profile's subject": func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"x"} },
		"may be used for":           func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) },
		"has its profile's names":   func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.IPv4(10, 0, 0, 12)) },
		"has exactly one URI":       func(c *x509.Certificate) { c.URIs = append(c.URIs, &url.URL{Scheme: "x", Host: "y"}) },
		"has no extension":          func(c *x509.Certificate) { c.ExtraExtensions = raw(54, false, []byte{2, 1, 0}) },
	}
	for _, l := range lints {
		for prefix, change := range broken {
			if !strings.HasPrefix(l.sentence, prefix) {
				continue
			}
			c := signed(change)
			if l.holds(ca.Certificate, template(), c) {
				t.Errorf("the lint %q does not see a certificate that is not so", l.sentence)
			}
			if err := checkSigned(c.Raw, ca.Certificate, template(), key); err == nil || !strings.Contains(err.Error(), l.sentence) {
				t.Errorf("the lint %q: %v", l.sentence, err)
			}
			delete(broken, prefix)
		}
	}
	// The one lint that no template can break: another issuer's name.
	other := must(CreateAuthority(filepath.Join(t.TempDir(), "other"), "prod-b", "p256", noon))
	if l := lints[0]; len(broken) != 0 || l.holds(other.Certificate, template(), signed(func(*x509.Certificate) {})) {
		t.Errorf("lints that were not tried: %v; issuer: %q", broken, l.sentence)
	}
	if err := checkSigned(signed(func(*x509.Certificate) {}).Raw, ca.Certificate, template(), must(PublicKeyOf(rsa2048.Public()))); err == nil {
		t.Error("a certificate for another key passes")
	}
}

func raw(arc int, critical bool, value []byte) []pkix.Extension {
	return []pkix.Extension{{Id: []int{2, 5, 29, arc}, Critical: critical, Value: value}}
}

func TestClientNames(t *testing.T) {
	masters := Clients{must(wire.ParseGlob("kubemaster-*"))}
	for _, test := range []struct {
		clients Clients
		name    string
		ok      bool
	}{
		{masters, "kubemaster-01", true},
		{masters, "worker-01", false},
		{everyClient, "worker-01", true},
		{everyClient, "root", false},
		{everyClient, "signerd", false},
		{everyClient, "localhost", false},
		{everyClient, "help", false},
		{everyClient, "release", false},
		{everyClient, "get-peers", false},
		{everyClient, "etcd-1", false},
		{everyClient, "etcd", true},
		{everyClient, "peer.prod-a.etcd.internal", false}, // it would open the peer port
		{everyClient, "etcd.internal", false},
		{everyClient, "petcd.internal", true},
		{everyClient, "Upper", false}, // not canonical: wire.Parse lowers it
		{everyClient, "a_b", false},
	} {
		if _, err := test.clients.Subject(test.name); (err == nil) != test.ok || err != nil && !errors.Is(err, wire.ErrName) {
			t.Errorf("%s among %s: %v; want ok %v", test.name, test.clients, err, test.ok)
		}
	}
	if _, err := MemberSubject("kubemaster-01", addresses("10.0.0.1")); !errors.Is(err, wire.ErrName) {
		t.Errorf("a member called kubemaster-01: %v", err)
	}
	if _, err := MemberSubject("etcd-1", nil); !errors.Is(err, wire.ErrName) {
		t.Errorf("a member without address: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	for text, ok := range map[string]bool{
		"spiffe://prod.example":       true,
		"spiffe://prod.example/etcd":  true,
		"netsy://my-cluster":          true,
		"netsy://my-cluster/x":        false,
		"netsy://my-cluster/":         false,
		"spiffe://prod.example/":      false,
		"spiffe://prod.example//x":    false,
		"spiffe://prod.example/../x":  false,
		"spiffe://Prod.example":       false,
		"SPIFFE://prod.example":       false,
		"spiffe://prod.example:443":   false,
		"spiffe://u@prod.example":     false,
		"spiffe://prod.example?x":     false,
		"spiffe://prod.example#x":     false,
		"spiffe://prod.example?":      false,
		"spiffe://":                   false,
		"prod.example":                false,
		"spiffe:prod.example":         false,
		"spiffe://prod.ex ample":      false,
		"":                            false,
		"spiffe://prod.example/a%2fb": false,
	} {
		id, err := ParseIdentity(text)
		if (err == nil) != ok || ok && id.String() != text {
			t.Errorf("ParseIdentity(%q) = %s, %v; want ok %v", text, id, err, ok)
		}
	}
	if got := must(ParseIdentity("spiffe://prod.example/etcd")).of("peer", "etcd-1").String(); got != "spiffe://prod.example/etcd/peer/etcd-1" {
		t.Errorf("the URI of a member is %s", got)
	}
}
