package signer

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/wire"
)

// profile is what a kind of certificate may be used for, and how long.
type profile struct {
	name      string // in the ledger
	role      string // in the URI
	life      time.Duration
	extended  []x509.ExtKeyUsage
	encipher  bool // keyEncipherment too, for RSA keys (RFC 8813 forbids it for others)
	addresses bool // names and addresses that a server answers to
	internal  bool // it never leaves the signer's memory
}

var (
	client = &profile{
		name:     "client",
		role:     "client",
		life:     clientLife,
		extended: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	member = &profile{
		name:      "member",
		role:      "peer",
		life:      memberLife,
		extended:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		encipher:  true,
		addresses: true,
	}
	// self is signerd's own client certificate, which never leaves its memory.
	self = &profile{
		name:     "self",
		role:     client.role,
		life:     client.life,
		extended: client.extended,
		internal: true,
	}
	// probe is shown to both ports of a member, to see whether they accept its CA.
	probe = &profile{
		name:      "probe",
		role:      member.role,
		life:      probeLife,
		extended:  member.extended,
		addresses: true,
		internal:  true,
	}
)

// internal says whether a profile's certificates never leave the signer.
func internal(name string) bool {
	return slices.ContainsFunc([]*profile{client, member, self, probe}, func(p *profile) bool { return p.internal && p.name == name })
}

// How long a client's certificate is valid, and a member's.
const (
	ClientLife = clientLife
	MemberLife = memberLife
)

// probeLife is how long a probe is valid.
const probeLife = time.Hour

// internalSuffix ends the names that signerd itself puts into certificates.
const internalSuffix = ".etcd.internal"

// PeerName is the DNS name that only members' certificates carry: with it as
// etcd's peer-cert-allowed-hostname no client certificate opens the peer port.
func PeerName(cluster string) string { return "peer." + cluster + internalSuffix }

// template is the certificate that subject gets for key, before it is signed.
func (s *Signer) template(now time.Time, subject Subject, key PublicKey, serial *big.Int) *x509.Certificate {
	p := subject.profile
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{s.cluster}, CommonName: subject.name},
		NotBefore:             now.Add(-backdate).Truncate(time.Second).UTC(),
		NotAfter:              now.Add(p.life).Truncate(time.Second).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           p.extended,
		BasicConstraintsValid: true,
		SubjectKeyId:          key.ID(),
		URIs:                  []*url.URL{s.identity.of(p.role, subject.name)},
		DNSNames:              []string{subject.name},
	}
	if _, isRSA := key.key.(*rsa.PublicKey); isRSA && p.encipher {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if p.addresses {
		t.DNSNames = append(t.DNSNames, "localhost", PeerName(s.cluster))
		for _, address := range append(slices.Clone(subject.addresses), loopback...) {
			addAddress(t, address)
		}
	}
	return t
}

var loopback = []wire.Address{
	wire.AddressFrom(netip.MustParseAddr("127.0.0.1")),
	wire.AddressFrom(netip.IPv6Loopback()),
}

// addAddress adds a subject alternative name, once.
func addAddress(t *x509.Certificate, address wire.Address) {
	if !address.IP().IsValid() {
		if !slices.Contains(t.DNSNames, address.String()) {
			t.DNSNames = append(t.DNSNames, address.String())
		}
		return
	}
	ip := net.IP(address.IP().AsSlice())
	if !slices.ContainsFunc(t.IPAddresses, ip.Equal) {
		t.IPAddresses = append(t.IPAddresses, ip)
	}
}
