package authkeys

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

func TestCertificates(t *testing.T) {
	ca := newSigner(t)
	user := newSigner(t).PublicKey()
	line := "cert-authority"
	const bound = `cert-authority,principals="kubemaster-01,kubemaster-02",permit="get-*,kubemaster-*",from="10.0.0.0/8"`
	for _, test := range []struct {
		what    string
		options string
		change  func(*ssh.Certificate)
		allowed []string // nil: not admitted
		denied  []string
		forced  string
	}{
		{"as it is", `cert-authority,permit="get-*,kubemaster-*"`, nil, []string{"get-peers", "kubemaster-01"}, []string{"kubemaster-02", "etcd-1=10.0.0.12", "release kubemaster-01"}, ""},
		{"a line without permit", line, nil, []string{"get-peers"}, []string{"kubemaster-01"}, ""},
		{"a bound line", bound, nil, []string{"kubemaster-01"}, []string{"kubemaster-03"}, ""},
		{"several principals, one of them listed", bound, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root", "kubemaster-09", "kubemaster-02"} },
			[]string{"kubemaster-02"}, []string{"kubemaster-09"}, ""},
		{"no principals", line, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, nil, nil, ""},
		{"only principals that are no names", line, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*", "Kubemaster-01", ""} }, nil, nil, ""},
		{"no listed principal", bound, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"kubemaster-03"} }, nil, nil, ""},
		{"a host certificate", line, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, nil, nil, ""},
		{"expired", line, func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Unix()) }, nil, nil, ""},
		{"not yet valid", line, func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Unix()) + 1 }, nil, nil, ""},
		{"an unknown critical option", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x@example": ""} }, nil, nil, ""},
		{"verify-required", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"verify-required": ""} }, nil, nil, ""},
		{"a source address", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{sourceAddress: "10.0.0.0/24"} }, []string{"get-peers"}, nil, ""},
		{"another source address", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{sourceAddress: "10.0.1.0/24"} }, nil, nil, ""},
		{"a source address that does not parse", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{sourceAddress: "here"} }, nil, nil, ""},
		{"a pattern as source address", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{sourceAddress: "10.0.0.*"} }, nil, nil, ""},
		{"an empty source address", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{sourceAddress: ""} }, nil, nil, ""},
		{"a forced command", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{forceCommand: "get-peers"} }, []string{"get-peers"}, nil, "get-peers"},
		{"the same command forced twice", `cert-authority,command="get-peers"`, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{forceCommand: " get-peers"} }, []string{"get-peers"}, nil, "get-peers"},
		{"two forced commands", `cert-authority,command="get-status"`, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{forceCommand: "get-peers"} }, nil, nil, ""},
		{"a forced command that is none", line, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{forceCommand: "rm -rf /"} }, nil, nil, ""},
		{"a line that has expired", `cert-authority,expiry-time="20200101Z"`, nil, nil, nil, ""},
		{"from elsewhere", `cert-authority,from="192.168.0.0/16"`, nil, nil, nil, ""},
		{"a plain line for the CA's key", "restrict", nil, nil, nil, ""},
	} {
		certificate := &ssh.Certificate{
			Key: user, Serial: 7, CertType: ssh.UserCert, KeyId: "node",
			ValidPrincipals: []string{"kubemaster-01"},
			ValidAfter:      uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
		}
		if test.change != nil {
			test.change(certificate)
		}
		if err := certificate.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		grant, err := parse(t, test.options+" "+marshal(ca.PublicKey())).Admit(certificate, source, now)
		if (err == nil) != (test.allowed != nil) || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		if err != nil {
			continue
		}
		if grant.Forced != test.forced {
			t.Errorf("%s: forced %q, want %q", test.what, grant.Forced, test.forced)
		}
		for _, text := range test.allowed {
			if !grant.Allows(command(t, text), wire.AddressFrom(source)) {
				t.Errorf("%s: %q is denied", test.what, text)
			}
		}
		for _, text := range test.denied {
			if grant.Allows(command(t, text), wire.AddressFrom(source)) {
				t.Errorf("%s: %q is allowed", test.what, text)
			}
		}
	}
}

// A certificate counts by its CA's signature, not by who it names as its CA.
func TestForgedCertificate(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	certificate := &ssh.Certificate{
		Key: newSigner(t).PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"kubemaster-01"}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := certificate.SignCert(rand.Reader, other); err != nil {
		t.Fatal(err)
	}
	keys := parse(t, "cert-authority "+marshal(ca.PublicKey()))
	if _, err := keys.Admit(certificate, netip.MustParseAddr("10.0.0.1"), now); !errors.Is(err, ErrDenied) {
		t.Errorf("a certificate by another CA: %v", err)
	}
	certificate.SignatureKey = ca.PublicKey()
	if _, err := keys.Admit(certificate, netip.MustParseAddr("10.0.0.1"), now); !errors.Is(err, ErrDenied) {
		t.Errorf("a certificate with a forged signature: %v", err)
	}
	// The CA's own key is no way in, nor is the certificate's bare key.
	for _, key := range []ssh.PublicKey{ca.PublicKey(), certificate.Key} {
		if _, err := keys.Admit(key, netip.MustParseAddr("10.0.0.1"), now); !errors.Is(err, ErrUnlisted) {
			t.Errorf("a bare key: %v", err)
		}
	}
}
