package main

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/rotation"
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
	trust     []*x509.Certificate
}

// load reads everything and changes nothing. The error lists all that is wrong but what
// checkStart finds; unless it is the configuration itself, what could be read comes with it.
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

// checkStart lists what keeps a signer from its start beside what load finds, and what a
// backup can be made without: what signerd itself wrote down of etcd and of a step.
func (s *setup) checkStart() error {
	_, err := endpoints(s.config)
	problems := multierror.Append(nil, err)
	if s.authority != nil {
		problems = multierror.Append(problems, s.authority.CheckStep())
	}
	return problems.ErrorOrNil()
}

// superseded says that another signer took over from this one, so that it is not started.
func (s *setup) superseded() error {
	if s.authority == nil {
		return nil
	}
	return rotation.Superseded(s.authority)
}

// parts are what the signer is made of.
func (s *setup) parts() signer.Parts {
	return signer.Parts{Cluster: s.config.Cluster, Identity: s.identity, Authority: s.authority, Ledger: s.config.Ledger}
}

// loadTrust reads further CAs to hand out.
func loadTrust(paths []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	var problems *multierror.Error
	for _, path := range paths {
		certificates, err := loadCAs(path)
		if err != nil {
			problems = multierror.Append(problems, fmt.Errorf("reading a trusted CA: %w", err))
		}
		all = append(all, certificates...)
	}
	return all, problems.ErrorOrNil()
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
func (s *setup) connect(signs *signer.Signer) (*peers.Cluster, error) {
	urls, err := endpoints(s.config)
	if err != nil {
		return nil, err
	}
	return peers.Connect(urls, peers.Credentials{Roots: s.roots, Certificate: signs.Self(time.Now).Certificate})
}

// roots gives the CAs by which signerd knows etcd.
func (s *setup) roots() *x509.CertPool {
	pool := s.authority.Roots()
	for _, c := range s.trust {
		pool.AddCert(c)
	}
	return pool
}
