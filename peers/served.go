package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

// Served is what an etcd really shows and trusts at one of its ports: it reads
// its certificate for each handshake, but its CAs when it starts, the client
// port's later than the peer port's.
type Served struct {
	Chain []*x509.Certificate // the certificate, and what came with it
	Trust [][]byte            // the names of the CAs that it trusts, DER
}

// inspectTimeout bounds the look at one port.
const inspectTimeout = 5 * time.Second

// Inspect looks at the port at address, host:port, and shows it a certificate,
// or none. It takes what is served there as a fact, and believes it in nothing.
func Inspect(ctx context.Context, address string, show *tls.Certificate) (*Served, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	if show == nil {
		show = &tls.Certificate{}
	}
	s := &Served{}
	asked := false
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // one that has expired is what is looked for
		VerifyConnection: func(state tls.ConnectionState) error {
			s.Chain = state.PeerCertificates
			return nil
		},
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s.Trust, asked = request.AcceptableCAs, true
			return show, nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		err = conn.Close()
	}
	switch {
	case asked && len(s.Chain) > 0: // before TLS 1.3 a refusal ends the handshake
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return nil, fmt.Errorf("%s does not ask for a certificate: etcd runs there without client-cert-auth", address)
}

// Difference compares the names of the CAs that are loaded with a bundle: those
// that are trusted and should not be, and those that should be and are not.
func (s *Served) Difference(bundle []*x509.Certificate) (extra, missing []string) {
	var wanted [][]byte
	for _, c := range bundle {
		wanted = append(wanted, c.RawSubject)
		if !contains(s.Trust, c.RawSubject) {
			missing = append(missing, distinguishedName(c.RawSubject))
		}
	}
	for _, name := range s.Trust {
		if !contains(wanted, name) {
			extra = append(extra, distinguishedName(name))
		}
	}
	return extra, missing
}

func contains(names [][]byte, name []byte) bool {
	return slices.ContainsFunc(names, func(n []byte) bool { return slices.Equal(n, name) })
}

// distinguishedName gives a distinguished name for people.
func distinguishedName(der []byte) string {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		return fmt.Sprintf("%x", der)
	}
	var name pkix.Name
	name.FillFromRDNSequence(&rdns)
	return name.String()
}
