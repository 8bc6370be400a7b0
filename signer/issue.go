package signer

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"
)

// Signer issues the certificates of one cluster.
type Signer struct {
	cluster   string
	identity  Identity
	authority *Authority
	ledger    *Ledger
	stopped   atomic.Pointer[error]
}

// Cluster gives the cluster's id.
func (s *Signer) Cluster() string { return s.cluster }

// Authority gives the CA.
func (s *Signer) Authority() *Authority { return s.authority }

// Ledger gives the record of what was issued.
func (s *Signer) Ledger() *Ledger { return s.ledger }

// Stop lets nothing be signed any more that leaves the signer, for a reason that
// clients may learn; with none it goes on.
func (s *Signer) Stop(reason error) { s.stopped.Store(&reason) }

// Stopped says why this signer signs no more; nil while it does. The error wraps
// ErrRetry.
func (s *Signer) Stopped() error {
	if reason := s.stopped.Load(); reason != nil && *reason != nil {
		return fmt.Errorf("%w: this signer signs no more: %w", ErrRetry, *reason)
	}
	return nil
}

// Asker is who asked for a certificate, for the ledger.
type Asker struct {
	SSHKey string // fingerprint as ssh-keygen -l prints it, or a certificate's id
	Source string // IP address
}

// Order is what Issue needs to know.
type Order struct {
	Subject Subject
	Key     PublicKey
	Claim   Claim // by what right the name is taken
	Asker   Asker
}

// Certificate is one that was issued.
type Certificate struct {
	PEM    []byte
	Serial string // as the ledger has it
}

// Issue records, signs and lints one certificate. The name is taken in the same
// step that records it. ErrHeld, ErrRetry, ErrUnrecorded and the context's own error from
// before that step say that nothing was recorded; after it, a fault of ours, or that the
// client went away, leaves a line that says that the certificate is void.
func (s *Signer) Issue(ctx context.Context, now time.Time, order Order) (*Certificate, error) {
	if err := s.Stopped(); err != nil && !order.Subject.profile.internal {
		return nil, err
	}
	// No step of a rotation counts until the certificate is recorded.
	s.authority.mu.RLock()
	defer s.authority.mu.RUnlock()
	return s.issue(ctx, now, order, s.authority.set.active())
}

func (s *Signer) issue(ctx context.Context, now time.Time, order Order, ca *Generation) (*Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := s.template(now, order.Subject, order.Key, serial)
	if order.Subject.profile.internal { // signerd makes itself a new one in time
		template.NotAfter = earliest(template.NotAfter, ca.Certificate.NotAfter)
	}
	if err := fitLife(template, ca.Certificate); err != nil {
		return nil, err
	}
	entry := order.entry(now, template, ca)
	if order.Subject.profile.internal {
		// It never leaves this process, which needs it when the disk is full too.
		s.ledger.Note(entry)
	} else if err := s.ledger.Take(ctx, entry, order.Claim); err != nil {
		return nil, err
	}
	text, err := sign(template, ca, order.Key)
	if err == nil {
		// A client that is gone must not hold a name it never got.
		err = ctx.Err()
	}
	if err != nil {
		s.ledger.Note(entry.void(now, err))
		return nil, err
	}
	return &Certificate{PEM: text, Serial: entry.Serial}, nil
}

// Check says whether Issue would refuse an order now, without doing anything.
func (s *Signer) Check(now time.Time, order Order) error {
	if err := s.Stopped(); err != nil {
		return err
	}
	template := s.template(now, order.Subject, order.Key, nil)
	if err := fitLife(template, s.authority.Active().Certificate); err != nil {
		return err
	}
	return s.ledger.check(now, order)
}

// fitLife keeps a certificate inside its issuer's life. One that would outlive
// it is refused, not cut short: its owner relies on the whole.
func fitLife(template, issuer *x509.Certificate) error {
	if template.NotBefore.Before(issuer.NotBefore) {
		template.NotBefore = issuer.NotBefore
	}
	if template.NotAfter.After(issuer.NotAfter) {
		return fmt.Errorf("%w: the CA expires at %s, before this certificate would; its operator must replace the CA: rotate prepare",
			ErrRetry, issuer.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// sign makes the certificate and lets nothing out that fails a lint.
func sign(template *x509.Certificate, ca *Generation, key PublicKey) ([]byte, error) {
	keyID, err := keyIDOf(ca.Certificate)
	if err != nil {
		return nil, err
	}
	template.AuthorityKeyId = keyID // for a CA without one; otherwise the same
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, key.key, ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if err := checkSigned(der, ca.Certificate, template, key); err != nil {
		return nil, fmt.Errorf("linting serial %s: %w", formatSerial(template.SerialNumber), err)
	}
	return append(EncodeCertificate(der), ca.chain()...), nil
}

func (o Order) entry(now time.Time, template *x509.Certificate, ca *Generation) Entry {
	return Entry{
		Event:      Issued,
		Time:       now.UTC().Round(0),
		Serial:     formatSerial(template.SerialNumber),
		Profile:    o.Subject.profile.name,
		Name:       o.Subject.name,
		Addresses:  o.Subject.addresses,
		NotAfter:   template.NotAfter,
		Generation: ca.ID,
		Key:        o.Key.Fingerprint(),
		SSHKey:     o.Asker.SSHKey,
		Source:     o.Asker.Source,
	}
}

// formatSerial writes a serial number as openssl x509 -serial does, in lower
// case.
func formatSerial(serial *big.Int) string {
	text := serial.Text(16)
	if len(text)%2 == 1 {
		text = "0" + text
	}
	return text
}
