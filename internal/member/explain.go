package member

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signerd/signerd/signer"
)

// explain says what lies behind a chain that does not verify, and what to do.
func explain(err error, chain, cas []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return explainAuthority(err, chain, cas)
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case !ok:
		return err
	case invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return fmt.Errorf("%q is valid only from %s on, and the clock says %s: set the clock that is wrong (timedatectl)",
			invalid.Cert.Subject, stamp(invalid.Cert.NotBefore), stamp(now))
	case invalid.Reason == x509.Expired:
		return fmt.Errorf("%q expired at %s, and the clock says %s: have it renewed, or set the clock if that is wrong (timedatectl)",
			invalid.Cert.Subject, stamp(invalid.Cert.NotAfter), stamp(now))
	case invalid.Reason == x509.IncompatibleUsage && usage == x509.ExtKeyUsageServerAuth:
		return fmt.Errorf("%q is not for servers: its extended key usage lacks serverAuth, and whoever connects refuses it", invalid.Cert.Subject)
	case invalid.Reason == x509.IncompatibleUsage:
		return fmt.Errorf("%q is not for clients: its extended key usage lacks clientAuth, and the member that is connected to refuses it", invalid.Cert.Subject)
	}
	return err
}

// explainAuthority tells a CA that was made anew under its old name from one that
// is simply another.
func explainAuthority(err error, chain, cas []*x509.Certificate) error {
	top := chain[len(chain)-1]
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, top.RawIssuer) {
			continue
		}
		signed := top.CheckSignatureFrom(ca)
		if _, weak := errors.AsType[x509.InsecureAlgorithmError](signed); weak {
			return fmt.Errorf("it was signed with an algorithm that is not accepted any more: %w; have it issued again", signed)
		}
		if signed == nil {
			return err // not for lack of its CA
		}
		return fmt.Errorf("it was signed by a CA that is called %q as the trusted one is, and has another key (trusted is %s): the CA was made anew, or the files are of two clusters; take certificate and CAs from the same signer",
			ca.Subject, signer.Fingerprint(ca))
	}
	return fmt.Errorf("its CA %q is not trusted here: trusted are %s; take certificate and CAs from the same signer", top.Issuer, subjects(cas))
}

func subjects(cas []*x509.Certificate) string {
	names := make([]string, 0, len(cas))
	for _, ca := range cas {
		names = append(names, fmt.Sprintf("%q", ca.Subject))
	}
	return strings.Join(names, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
