package signer

import (
	"errors"
	"time"
)

// Parts are what a Signer is made of.
type Parts struct {
	Cluster   string // its id
	Identity  Identity
	Authority *Authority // as LoadAuthority gave it
	Ledger    string     // its directory
	Options   LedgerOptions
}

// Left is what a crash had left unfinished.
type Left struct {
	Cut    int64 // bytes of a batch at the ledger's end; nobody was answered from it
	Undone Step  // a step of a rotation that did not count; empty: none
}

// Open makes a Signer that no other process can be beside: it holds the ledger's lock
// until Close. First it brings to an end what a crash left, of a batch or of a step. The
// error is OpenLedger's, or says what is wrong with the CA.
func Open(p Parts, now time.Time) (*Signer, Left, error) {
	ledger, cut, err := OpenLedger(p.Ledger, p.Options)
	if err != nil {
		return nil, Left{}, err
	}
	// Another process that held the lock may have been in the middle of a step.
	undone, err := p.Authority.Recover(now)
	if err != nil {
		return nil, Left{Cut: cut}, errors.Join(err, ledger.Close())
	}
	return &Signer{cluster: p.Cluster, identity: p.Identity, authority: p.Authority, ledger: ledger}, Left{cut, undone}, nil
}

// Close ends the ledger, as Ledger.Close does.
func (s *Signer) Close() error { return s.ledger.Close() }
