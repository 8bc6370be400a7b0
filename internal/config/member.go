package config

import (
	"github.com/signerd/signerd/internal/wire"
)

// Member is a configuration of signerd sync that passed all checks which need no
// other file. Paths are absolute.
type Member struct {
	Cluster    string
	Name       string
	Addresses  []wire.Address // the first one is what the other members dial
	Signers    []SignerAt
	KnownHosts string // where the host keys of signers without a fingerprint are
	Manage     bool   // false: an operator supplies the certificates

	// What etcd shows and trusts at its client port and at its peer port.
	Client, Peer MemberFiles
}

// SignerAt is where a signer is asked.
type SignerAt struct {
	Address string // host:port
	HostKey string // its host key's fingerprint; empty: known_hosts
}

// MemberFiles are paths of a certificate, its key, and the CAs that are trusted.
type MemberFiles struct{ Certificate, Key, Trust string }

// PKIDir is where first-boot puts what a member shows and trusts.
const PKIDir = "/etc/etcd/pki"

// StandardFiles are the files that first-boot makes, for both of etcd's ports.
var StandardFiles = MemberFiles{Certificate: PKIDir + "/member.crt", Key: PKIDir + "/member.key", Trust: PKIDir + "/ca.crt"}

// DefaultMemberPath is where first-boot puts member.yaml.
const DefaultMemberPath = "/etc/signerd/member.yaml"

// memberFile is member.yaml as it is written.
type memberFile struct {
	Cluster   string         `yaml:"cluster"`
	Name      string         `yaml:"name"`
	Addresses []string       `yaml:"addresses"`
	Signers   []memberSigner `yaml:"signers"`
	Manage    bool           `yaml:"manage"`

	Certificate     string `yaml:"certificate"`
	Key             string `yaml:"key"`
	Trust           string `yaml:"trust"`
	PeerCertificate string `yaml:"peer_certificate"`
	PeerKey         string `yaml:"peer_key"`
	PeerTrust       string `yaml:"peer_trust"`
}

type memberSigner struct {
	Address string `yaml:"address"`
	HostKey string `yaml:"host_key"`
}

// LoadMember reads the configuration of signerd sync at path. Relative paths in
// it are taken from the directory that it is in. The error lists everything that
// is wrong.
func LoadMember(path string) (*Member, error) {
	data, err := read(path, "member.yaml(5)")
	if err != nil {
		return nil, err
	}
	return ParseMember(path, data)
}

// ParseMember reads a configuration's content; path stands for it in errors.
func ParseMember(path string, data []byte) (*Member, error) {
	f := memberFile{Manage: true, Certificate: StandardFiles.Certificate, Key: StandardFiles.Key, Trust: StandardFiles.Trust}
	r, err := decode(path, data, &f)
	if err != nil {
		return nil, err
	}
	m := r.member(f)
	if err := r.verdict(path); err != nil {
		return nil, err
	}
	return m, nil
}

func (r *reader) member(f memberFile) *Member {
	m := &Member{Name: f.Name, Manage: f.Manage, KnownHosts: r.path("known_hosts", "known_hosts")}
	var err error
	if m.Cluster, err = wire.ParseClusterID(f.Cluster); err != nil {
		r.problem("cluster: %w", err)
	}
	if _, err = wire.ParseMemberName(f.Name); err != nil && f.Manage {
		r.problem("name: %w", err)
	}
	for _, text := range f.Addresses {
		a, err := wire.ParseAddress(text)
		if err != nil {
			r.problem("addresses: %w", err)
		}
		m.Addresses = append(m.Addresses, a)
	}
	if len(f.Addresses) == 0 {
		r.problem("addresses: the address that the other members dial is missing")
	}
	for _, s := range f.Signers {
		address, err := wire.ParseSigner(s.Address)
		if err != nil {
			r.problem("signers: %w", err)
		}
		if s.HostKey != "" {
			if _, err := wire.ParseHostKey(s.HostKey); err != nil {
				r.problem("signers: %w", err)
			}
		}
		m.Signers = append(m.Signers, SignerAt{address, s.HostKey})
	}
	if f.Manage && len(f.Signers) == 0 {
		r.problem("signers: none; nobody could renew the certificate (manage: false says that somebody else does)")
	}
	m.Client = r.files("", f.Certificate, f.Key, f.Trust)
	m.Peer = m.Client
	if peer := [3]string{f.PeerCertificate, f.PeerKey, f.PeerTrust}; peer != [3]string{} {
		if f.Manage {
			r.problem("peer_certificate, peer_key and peer_trust are for certificates that an operator supplies (manage: false)")
		}
		m.Peer = r.files("peer_", peer[0], peer[1], peer[2])
	}
	return m
}

func (r *reader) files(prefix, certificate, key, trust string) MemberFiles {
	return MemberFiles{r.path(prefix+"certificate", certificate), r.path(prefix+"key", key), r.path(prefix+"trust", trust)}
}
