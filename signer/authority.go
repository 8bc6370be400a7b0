package signer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// ErrNoAuthority says that there is no CA yet. None is ever made by itself.
var ErrNoAuthority = errors.New("there is no CA: make one with signerd ca create, or bring one with signerd ca import")

// Authority is the CA in all its generations, read from its directory. Its methods
// may be called from any goroutine.
type Authority struct {
	dir string

	changing sync.Mutex   // held by a step of a rotation; taken before mu
	mu       sync.RWMutex // guards what follows; held for reading by Issue from its beginning to its end: nothing below that may ask the Authority
	set      set
	standing standing // as it is on disk
	noticed  bool     // another signer took over, whatever the disk takes
	changes  int      // of the set, since the start
}

// LoadAuthority reads the authority in dir. A generation needs its certificate
// and its key, both whole and fitting each other, and a CA that signs at now;
// the error says which file is not so. It changes nothing.
func LoadAuthority(dir string, now time.Time) (*Authority, error) {
	s, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingAuthority(dir)
	} else if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	set, err := loadSet(dir, s, now)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	return &Authority{dir: dir, set: set, standing: s.standing}, nil
}

// loadSet reads the generations that a state names.
func loadSet(dir string, s state, now time.Time) (set, error) {
	var all set
	for _, listed := range s.Generations {
		g, err := loadGeneration(dir, listed, now)
		if err != nil {
			return nil, fmt.Errorf("generation %s: %w", listed.ID, err)
		}
		all = append(all, g)
	}
	if err := all.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	return all, nil
}

// missingAuthority tells a directory without a CA from one whose state file is
// gone: a new CA beside old keys would be a second one.
func missingAuthority(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return fmt.Errorf("%s: %w", dir, ErrNoAuthority)
	case err != nil:
		return fmt.Errorf("reading the CA: %w", err)
	}
	return fmt.Errorf("reading the CA: %s has files but no %s: restore it from a backup", dir, stateFile)
}

// loadGeneration reads one generation. There are four cases: both files, which
// must fit; either one alone; and none.
func loadGeneration(dir string, listed generationState, now time.Time) (*Generation, error) {
	certPath, keyPath, crossPath := certFile(dir, listed.ID), keyFile(dir, listed.ID), crossFile(dir, listed.ID)
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := durable.ReadSecret(keyPath)
	noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCert && noKey:
		return nil, fmt.Errorf("%s and %s are missing: restore them from a backup", certPath, keyPath)
	case noCert:
		return nil, fmt.Errorf("%s is missing, its key is there: restore it from a backup or from any member's ca.crt", certPath)
	case noKey:
		return nil, fmt.Errorf("%s is missing, its certificate is there: restore it from a backup", keyPath)
	case certErr != nil || keyErr != nil:
		return nil, errors.Join(certErr, keyErr)
	}
	g, err := newGeneration(certPEM, keyPEM, listed.Role)
	if err == nil && g.Role == Active { // one that is on its way out may expire
		err = checkLife(g.Certificate, now)
	}
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certPath, keyPath, err)
	}
	if g.ID != listed.ID {
		return nil, fmt.Errorf("%s holds the CA with the id %s: it was exchanged; restore the right one", certPath, g.ID)
	}
	if !listed.Cross {
		return g, nil
	}
	crossPEM, err := os.ReadFile(crossPath)
	if err == nil {
		g.Cross, err = parseCertificate(crossPEM)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: restore it from a backup: %w", crossPath, err)
	}
	if !bytes.Equal(g.Cross.RawSubjectPublicKeyInfo, g.Certificate.RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("%s is not this CA's certificate by the one before it: restore it from a backup", crossPath)
	}
	return g, nil
}

// newGeneration makes a generation of a CA's certificate and its key, PEM.
func newGeneration(certPEM, keyPEM []byte, role Role) (*Generation, error) {
	certificate, err := parseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := ParsePrivateKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return generationOf(certificate, key, role)
}

// generationOf makes a generation of a CA's certificate and its key.
func generationOf(certificate *x509.Certificate, key crypto.Signer, role Role) (*Generation, error) {
	if err := checkCA(certificate, key); err != nil {
		return nil, err
	}
	keyID, err := keyIDOf(certificate)
	if err != nil {
		return nil, err
	}
	if len(keyID) < idSize { // whoever made it numbers its CAs
		key, err := PublicKeyOf(certificate.PublicKey)
		if err != nil {
			return nil, err
		}
		keyID = key.ID()
	}
	return &Generation{ID: hex.EncodeToString(keyID[:idSize]), Role: role, Certificate: certificate, key: key}, nil
}

// idSize is how many bytes of its key identifier name a generation.
const idSize = 4

// keyIDOf gives a CA certificate's subject key identifier; CAs without one are
// given that of their key.
func keyIDOf(certificate *x509.Certificate) ([]byte, error) {
	if len(certificate.SubjectKeyId) > 0 {
		return certificate.SubjectKeyId, nil
	}
	key, err := encodedPublicKey(certificate.PublicKey, certificate.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	return key.ID(), nil
}

// current gives the set as it is; nobody changes it.
func (a *Authority) current() set {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.set
}

// Generations gives all generations, the active one first.
func (a *Authority) Generations() []*Generation { return a.Rotation().Generations() }

// Rotation is where a rotation stands: all of it is of one moment.
type Rotation struct {
	Phase   Phase
	Old     *Generation // that is replaced; at rest the only one
	Next    *Generation // that is to follow it; nil at rest
	Paused  bool        // the last step led back: a person may have had a reason
	Version int         // counts the changes of the set, so that whoever judged it sees whether it is still the same
}

// Generations gives both, or the only one, the active one first.
func (r Rotation) Generations() []*Generation {
	switch {
	case r.Next == nil:
		return []*Generation{r.Old}
	case r.Next.Role == Active:
		return []*Generation{r.Next, r.Old}
	}
	return []*Generation{r.Old, r.Next}
}

// Rotation gives where a rotation stands.
func (a *Authority) Rotation() Rotation {
	a.mu.RLock()
	defer a.mu.RUnlock()
	r := Rotation{Phase: a.set.phase(), Old: a.set[0], Paused: a.standing.Paused, Version: a.changes}
	if len(a.set) > 1 {
		r.Next = a.set[1]
	}
	return r
}

// Active gives the generation that signs.
func (a *Authority) Active() *Generation { return a.current().active() }

// Tenure gives which signer this is.
func (a *Authority) Tenure() Tenure { return a.stands().Tenure }

// Superseded says whether another signer was seen to have taken over.
func (a *Authority) Superseded() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.noticed || a.standing.Superseded
}

// Restored says whether this is a backup that etcd does not know of yet: it may be of
// before a rotation, and another signer may be there.
func (a *Authority) Restored() bool { return a.stands().Restored }

// Untold says whether somebody decided that this signer signs before etcd knows it.
func (a *Authority) Untold() bool { return a.stands().Untold }

// Unclaimed is Restored as it stands on disk, where the daemon writes it.
func (a *Authority) Unclaimed() (bool, error) {
	s, err := readState(a.dir)
	return s.Restored, err
}

// UnknownBefore gives since when nobody else signs with this CA: what was signed before may
// not be in the ledger. It is zero for a CA that was made here.
func (a *Authority) UnknownBefore() time.Time { return a.stands().UnknownBefore }

func (a *Authority) stands() standing {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.standing
}

// NoteSuperseded keeps that another signer took over. It is on disk when this returns; if
// it cannot be, at least this process knows it.
func (a *Authority) NoteSuperseded() error {
	a.mu.Lock()
	a.noticed = true
	a.mu.Unlock()
	return a.restate(func(s *standing) error {
		s.Superseded = true
		return nil
	})
}

// BeginTenure begins a tenure that is later than this one and than an epoch. It is on disk
// when this returns. Until TakeOver a signer that must not sign still must not.
func (a *Authority) BeginTenure(epoch uint64) error {
	return a.restate(func(s *standing) (err error) {
		s.Tenure, err = newTenure(max(epoch, s.Tenure.Epoch))
		return err
	})
}

// TakeOver lets a signer that was superseded, or restored, sign in its tenure, of which
// etcd knows. What another one signed until now is not in its ledger. It is on disk when
// this returns.
func (a *Authority) TakeOver(now time.Time) error { return a.takeOver(now, false) }

// TakeOverUntold is TakeOver before etcd can be told of a tenure.
func (a *Authority) TakeOverUntold(now time.Time) error { return a.takeOver(now, true) }

func (a *Authority) takeOver(now time.Time, untold bool) error {
	err := a.restate(func(s *standing) error {
		s.Superseded, s.Restored, s.Untold, s.UnknownBefore = false, false, untold, now.UTC().Truncate(time.Second)
		return nil
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.noticed = false
	a.mu.Unlock()
	return nil
}

// restate changes what state.json says beside the generations.
func (a *Authority) restate(change func(*standing) error) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.standing
	if err := change(&next); err != nil || next == a.standing {
		return err
	}
	if err := writeRecord(filepath.Join(a.dir, stateFile), a.set.state(next)); err != nil {
		return err
	}
	a.standing = next
	return nil
}

// Bundle gives the certificates to trust, PEM: the active CA first, then the
// passive one.
func (a *Authority) Bundle() []byte {
	var bundle []byte
	for _, g := range a.Generations() {
		if g.Role != Inactive {
			bundle = append(bundle, EncodeCertificate(g.Certificate.Raw)...)
		}
	}
	return bundle
}

// Roots are the CAs by which the signer itself knows etcd: those of all
// generations, since a member may show a certificate of any of them.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, g := range a.current() {
		pool.AddCert(g.Certificate)
	}
	return pool
}
