package signer

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
)

// lint is one sentence about a certificate that must be true. issuer is the
// CA, want the template, c what was signed.
type lint struct {
	sentence string
	holds    func(issuer, want, c *x509.Certificate) bool
}

// lints are looked at for every certificate before it is answered. That its
// signature is right is not among them: x509.CreateCertificate has verified it.
var lints = []lint{
	{"is named as issued by its issuer (RFC 5280, 4.1.2.4)", func(issuer, _, c *x509.Certificate) bool {
		return bytes.Equal(c.RawIssuer, issuer.RawSubject)
	}},
	{"has its issuer's key identifier (RFC 5280, 4.2.1.1)", func(issuer, want, c *x509.Certificate) bool {
		return len(c.AuthorityKeyId) > 0 && (bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId) ||
			len(issuer.SubjectKeyId) == 0 && bytes.Equal(c.AuthorityKeyId, want.AuthorityKeyId))
	}},
	{"has a key identifier of its own (RFC 5280, 4.2.1.2)", func(_, want, c *x509.Certificate) bool {
		return len(c.SubjectKeyId) > 0 && bytes.Equal(c.SubjectKeyId, want.SubjectKeyId)
	}},
	{"is no CA, and says so in a critical extension (RFC 5280, 4.2.1.9)", func(_, _, c *x509.Certificate) bool {
		return c.BasicConstraintsValid && !c.IsCA && critical(c, 19)
	}},
	{"has the serial number that the ledger recorded, positive, at most 20 octets (RFC 5280, 4.1.2.2)", func(_, want, c *x509.Certificate) bool {
		return c.SerialNumber.Cmp(want.SerialNumber) == 0 && c.SerialNumber.Sign() > 0 && c.SerialNumber.BitLen() < 160
	}},
	{"begins no earlier than its issuer", func(issuer, want, c *x509.Certificate) bool {
		return c.NotBefore.Equal(want.NotBefore) && !c.NotBefore.Before(issuer.NotBefore)
	}},
	{"expires no later than its issuer", func(issuer, want, c *x509.Certificate) bool {
		return c.NotAfter.Equal(want.NotAfter) && !c.NotAfter.After(issuer.NotAfter)
	}},
	{"has its profile's subject", func(_, want, c *x509.Certificate) bool {
		return c.Subject.CommonName == want.Subject.CommonName && slices.Equal(c.Subject.Organization, want.Subject.Organization) && len(c.Subject.Names) == 2
	}},
	{"may be used for what its profile says", func(_, want, c *x509.Certificate) bool {
		return c.KeyUsage == want.KeyUsage && critical(c, 15) && slices.Equal(c.ExtKeyUsage, want.ExtKeyUsage) && len(c.UnknownExtKeyUsage) == 0
	}},
	{"has its profile's names and addresses", func(_, want, c *x509.Certificate) bool {
		return slices.Equal(c.DNSNames, want.DNSNames) && slices.EqualFunc(c.IPAddresses, want.IPAddresses, net.IP.Equal) && len(c.EmailAddresses) == 0
	}},
	{"has exactly one URI, its identity (SPIFFE X.509-SVID, 2)", func(_, want, c *x509.Certificate) bool {
		return len(c.URIs) == 1 && slices.EqualFunc(c.URIs, want.URIs, func(a, b *url.URL) bool { return a.String() == b.String() })
	}},
	{"has no extension that no profile has", func(_, _, c *x509.Certificate) bool {
		return len(c.Extensions) == len(profileExtensions) && !slices.ContainsFunc(profileExtensions, func(arc int) bool { return extension(c, arc) == nil })
	}},
}

// profileExtensions are the last arcs under id-ce (2.5.29, RFC 5280, 4.2.1) of
// the extensions in every profile: key identifiers, usages, alternative names,
// basic constraints.
var profileExtensions = []int{14, 15, 17, 19, 35, 37}

func extension(c *x509.Certificate, arc int) *pkix.Extension {
	for i := range c.Extensions {
		if c.Extensions[i].Id.Equal([]int{2, 5, 29, arc}) {
			return &c.Extensions[i]
		}
	}
	return nil
}

func critical(c *x509.Certificate, arc int) bool {
	e := extension(c, arc)
	return e != nil && e.Critical
}

// checkSigned parses what was signed and holds it to the lints and to the key
// that was asked for. All that fail are named.
func checkSigned(der []byte, issuer, want *x509.Certificate, key PublicKey) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("the signed certificate does not parse: %v", err)
	}
	var failed []error
	if !bytes.Equal(c.RawSubjectPublicKeyInfo, key.spki) {
		failed = append(failed, errors.New("the signed certificate is not for the key that was asked for"))
	}
	for _, l := range lints {
		if !l.holds(issuer, want, c) {
			failed = append(failed, fmt.Errorf("it is not true that the signed certificate %s", l.sentence))
		}
	}
	return errors.Join(failed...)
}
