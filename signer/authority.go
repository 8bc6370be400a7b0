package signer

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// The files of an authority's directory. Beside them each generation has its
// certificate, <id>.crt, and its key, <id>.key.
const (
	stateFile  = "state.json"
	activeKey  = "active.key" // a link to the active generation's key
	activeCert = "active.crt"
)

// stateVersion is the version of state.json that this code writes and reads.
const stateVersion = 1

// state says which generations there are, in what role. It is written last, so
// that what it does not name does not exist.
type state struct {
	Version     int               `json:"version"`
	Generations []generationState `json:"generations"`
}

type generationState struct {
	ID   string `json:"id"`
	Role Role   `json:"role"`
}

// ErrNoAuthority says that there is no CA yet. None is ever made by itself.
var ErrNoAuthority = errors.New("there is no CA: make one with signerd ca create, or bring one with signerd ca import")

// Authority is the CA in all its generations, read from its directory.
type Authority struct {
	dir         string
	generations []*Generation
	active      *Generation
}

// LoadAuthority reads the authority in dir. A generation needs its certificate
// and its key, both whole and fitting each other, and a CA that signs at now;
// the error says which file is not so. It changes nothing.
func LoadAuthority(dir string, now time.Time) (*Authority, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingAuthority(dir)
	} else if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	var s state
	if err := decodeStrict(data, &s); err != nil || s.Version != stateVersion {
		return nil, fmt.Errorf("reading the CA: %s is not a state file of version %d: restore it from a backup", filepath.Join(dir, stateFile), stateVersion)
	}
	a := &Authority{dir: dir}
	for _, listed := range s.Generations {
		g, err := loadGeneration(dir, listed, now)
		if err != nil {
			return nil, fmt.Errorf("reading the CA: generation %s: %w", listed.ID, err)
		}
		a.generations = append(a.generations, g)
		if g.Role == Active {
			a.active = g
		}
	}
	if err := checkSet(a.generations); err != nil {
		return nil, fmt.Errorf("reading the CA: %s: %w", filepath.Join(dir, stateFile), err)
	}
	return a, nil
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
	certPath, keyPath := filepath.Join(dir, listed.ID+".crt"), filepath.Join(dir, listed.ID+".key")
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
	g, err := newGeneration(certPEM, keyPEM, listed.Role, now)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certPath, keyPath, err)
	}
	if g.ID != listed.ID {
		return nil, fmt.Errorf("%s holds the CA with the id %s: it was exchanged; restore the right one", certPath, g.ID)
	}
	return g, nil
}

func newGeneration(certPEM, keyPEM []byte, role Role, now time.Time) (*Generation, error) {
	certificate, err := parseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := ParsePrivateKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if err := checkCA(certificate, key, now); err != nil {
		return nil, err
	}
	keyID, err := keyIDOf(certificate)
	if err != nil {
		return nil, err
	}
	return &Generation{ID: hex.EncodeToString(keyID)[:8], Role: role, Certificate: certificate, key: key}, nil
}

// keyIDOf gives a CA certificate's subject key identifier; CAs without one are
// given that of their key.
func keyIDOf(certificate *x509.Certificate) ([]byte, error) {
	if len(certificate.SubjectKeyId) >= 4 {
		return certificate.SubjectKeyId, nil
	}
	key, err := encodedPublicKey(certificate.PublicKey, certificate.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	return key.ID(), nil
}

// Generations gives all generations, the active one first.
func (a *Authority) Generations() []*Generation {
	ordered := []*Generation{a.active}
	for _, g := range a.generations {
		if g != a.active {
			ordered = append(ordered, g)
		}
	}
	return ordered
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

// Link points active.key and active.crt to the active generation's files, for
// people and backups that look there.
func (a *Authority) Link() error {
	for name, target := range map[string]string{activeKey: a.active.ID + ".key", activeCert: a.active.ID + ".crt"} {
		path := filepath.Join(a.dir, name)
		if now, err := os.Readlink(path); err == nil && now == target {
			continue
		}
		if err := durable.Symlink(target, path); err != nil {
			return fmt.Errorf("linking %s: %w", name, err)
		}
	}
	return nil
}

// writeAuthority makes dir, which must not hold anything yet, the home of one
// generation.
func writeAuthority(dir string, g *Generation) error {
	keyPEM, err := encodePrivateKey(g.key)
	if err != nil {
		return err
	}
	stateJSON, err := json.MarshalIndent(state{stateVersion, []generationState{{g.ID, g.Role}}}, "", "  ")
	if err != nil {
		return err
	}
	err = durable.CreateDir(dir, func(staging string) error {
		if err := durable.Create(filepath.Join(staging, g.ID+".key"), keyPEM, 0o600); err != nil {
			return err
		}
		if err := durable.Create(filepath.Join(staging, g.ID+".crt"), EncodeCertificate(g.Certificate.Raw), 0o644); err != nil {
			return err
		}
		if err := durable.Create(filepath.Join(staging, stateFile), append(stateJSON, '\n'), 0o600); err != nil {
			return err
		}
		return (&Authority{dir: staging, active: g}).Link()
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is not empty: it may hold a CA that certificates in use depend on; move it away first: %w", dir, err)
	}
	return err
}
