package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/commands"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// setup is everything that the configuration names, loaded.
type setup struct {
	config    *config.Config
	identity  signer.Identity
	authority *signer.Authority
	hostKey   ssh.Signer
	keys      *authkeys.Keys
	trust     []byte // PEM
}

// load reads everything and changes nothing. The error lists all that is wrong.
func load(path string, now time.Time) (*setup, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	s := &setup{config: c, identity: signer.DefaultIdentity(c.Cluster)}
	var problems *multierror.Error
	check := func(err error) { problems = multierror.Append(problems, err) } // nil is none
	if c.Identity != "" {
		s.identity, err = signer.ParseIdentity(c.Identity)
		check(err)
	}
	s.authority, err = signer.LoadAuthority(c.Authority, now)
	check(err)
	s.hostKey, err = sshfront.LoadHostKey(c.HostKey)
	check(err)
	s.keys, err = authkeys.Load(c.AuthorizedKeys)
	check(err)
	s.trust, err = loadTrust(c.Trust)
	check(err)
	check(sshfront.Check(sshfront.Profile(c.SSHProfile), sshfront.Limits(c.Limits.Front)))
	return s, problems.ErrorOrNil()
}

// loadTrust reads further CAs to hand out, as PEM.
func loadTrust(paths []string) ([]byte, error) {
	var bundle bytes.Buffer
	var problems *multierror.Error
	for _, path := range paths {
		certificates, err := loadCAs(path)
		if err != nil {
			problems = multierror.Append(problems, fmt.Errorf("reading a trusted CA: %w", err))
		}
		for _, certificate := range certificates {
			bundle.Write(signer.EncodeCertificate(certificate.Raw))
		}
	}
	return bundle.Bytes(), problems.ErrorOrNil()
}

func loadCAs(path string) ([]*x509.Certificate, error) {
	certificates, err := signer.ReadCertificates(path)
	if err != nil {
		return nil, err
	}
	for _, certificate := range certificates {
		if !certificate.IsCA {
			return nil, fmt.Errorf("%s: %s is not a CA", path, certificate.Subject)
		}
	}
	return certificates, nil
}

// connect connects to etcd as signerd itself.
func (s *setup) connect(authority *signer.Signer) (*peers.Cluster, error) {
	return peers.Connect(s.config.Etcd, peers.Credentials{Roots: s.roots, Certificate: commands.NewSelf(authority).Certificate})
}

// roots gives the CAs by which signerd knows etcd.
func (s *setup) roots() *x509.CertPool {
	pool := s.authority.Roots()
	pool.AppendCertsFromPEM(s.trust)
	return pool
}
