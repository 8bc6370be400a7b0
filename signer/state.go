package signer

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/crashpoint"
	"github.com/signerd/signerd/internal/durable"
)

// The files of an authority's directory. Beside them each generation has its
// certificate, <id>.crt, its key, <id>.key, and in a rotation the certificate that
// the generation before it signed for its key, <id>.cross.crt.
const (
	stateFile  = "state.json"
	stepFile   = "step.json"  // a step of a rotation that has begun and not ended
	activeKey  = "active.key" // a link to the active generation's key
	activeCert = "active.crt"
)

func certFile(dir, id string) string  { return filepath.Join(dir, id+".crt") }
func keyFile(dir, id string) string   { return filepath.Join(dir, id+".key") }
func crossFile(dir, id string) string { return filepath.Join(dir, id+".cross.crt") }

// stateVersion is the version of state.json and step.json that this code writes
// and reads.
const stateVersion = 1

// state says which generations there are, in the order in which they were made,
// and in what role. It is written last, so that what it does not name does not
// exist.
type state struct {
	Version int `json:"version"`
	standing
	Generations []generationState `json:"generations"`
}

// standing is what there is to know beside the generations.
type standing struct {
	Tenure        Tenure    `json:"tenure"`
	UnknownBefore time.Time `json:"unknown_before,omitzero"` // what was signed before may not be in the ledger
	Superseded    bool      `json:"superseded,omitempty"`    // another signer took over
	Restored      bool      `json:"restored,omitempty"`      // from a backup, and etcd does not know it yet
	Untold        bool      `json:"untold,omitempty"`        // it signs, as somebody decided, and etcd does not know it yet
	Paused        bool      `json:"paused,omitempty"`        // the last step of a rotation led back
}

// Tenure tells signers of one cluster apart that have the same CA, as one that was
// restored from a backup has: the one with the later epoch signs.
type Tenure struct {
	Epoch  uint64 `json:"epoch"`  // counts up from 1 each time that another machine takes over
	Signer string `json:"signer"` // drawn at random by each
}

// newTenure begins the epoch after another one; the first is after 0.
func newTenure(after uint64) (Tenure, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return Tenure{}, fmt.Errorf("drawing a signer's id: %w", err)
	}
	return Tenure{after + 1, hex.EncodeToString(id)}, nil
}

type generationState struct {
	ID    string `json:"id"`
	Role  Role   `json:"role"`
	Cross bool   `json:"cross,omitempty"` // it has a certificate by the one before it
}

// state gives what stands in state.json of a set.
func (s set) state(standing standing) state {
	return state{Version: stateVersion, standing: standing, Generations: s.generations()}
}

func (s set) generations() []generationState {
	var all []generationState
	for _, g := range s {
		all = append(all, generationState{g.ID, g.Role, g.Cross != nil})
	}
	return all
}

// idPattern is what generations are called, and so the beginning of their files' names.
const idPattern = `[0-9a-f]{8}`

var idForm = regexp.MustCompile(`^` + idPattern + `$`)

func readState(dir string) (state, error) {
	var s state
	err := readRecord(filepath.Join(dir, stateFile), &s)
	if err == nil && (s.Tenure.Epoch == 0 || s.Tenure.Signer == "") {
		err = fmt.Errorf("%s does not say whose it is (tenure): restore it from a backup", filepath.Join(dir, stateFile))
	}
	return s, err
}

// stepRecord is the journal of a step: what it leads to.
type stepRecord struct {
	Version int      `json:"version"`
	Step    Step     `json:"step"`
	From    []string `json:"from"` // the generations there were

	To []generationState `json:"to"`
}

// readStep gives the step that has begun and not ended; nil if there is none.
func readStep(dir string) (*stepRecord, error) {
	r := &stepRecord{}
	path, away := filepath.Join(dir, stepFile), "move it away; what counts is in "+stateFile
	err := durable.LoadState(path, stateVersion, r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, durable.ErrDamaged):
		return nil, fmt.Errorf("%w: %s", err, away)
	case err != nil:
		return nil, err
	}
	ids := slices.Clone(r.From)
	for _, g := range r.To {
		ids = append(ids, g.ID)
	}
	for _, id := range ids {
		if !idForm.MatchString(id) {
			return nil, fmt.Errorf("%s names a generation %q, and was not written by signerd: %s", path, id, away)
		}
	}
	return r, nil
}

// readRecord reads a state file of the authority.
func readRecord(path string, record any) error {
	err := durable.LoadState(path, stateVersion, record)
	if errors.Is(err, durable.ErrDamaged) {
		return fmt.Errorf("%w: restore the CA from a backup", err)
	}
	return err
}

// writeRecord puts one in the place of what is there. Tests cut the power around it.
func writeRecord(path string, record any) error {
	return crashpoint.Around(func() error { return durable.SaveState(path, record, 0o600) })
}

// writeGeneration writes the files of a generation that is not there yet.
func writeGeneration(dir string, g *Generation) error {
	keyPEM, err := encodePrivateKey(g.key)
	if err != nil {
		return err
	}
	if err := durable.Create(keyFile(dir, g.ID), keyPEM, 0o600); err != nil {
		return err
	}
	if g.Cross != nil {
		if err := durable.Create(crossFile(dir, g.ID), EncodeCertificate(g.Cross.Raw), 0o644); err != nil {
			return err
		}
	}
	return durable.Create(certFile(dir, g.ID), EncodeCertificate(g.Certificate.Raw), 0o644)
}

// eraseGeneration removes the files of a generation, its key first, and what a crash
// left of them.
func eraseGeneration(dir, id string) error {
	paths := []string{keyFile(dir, id), crossFile(dir, id), certFile(dir, id)}
	for _, path := range paths {
		if err := durable.Sweep(path); err != nil {
			return err
		}
	}
	return remove(dir, paths...)
}

// remove removes files of a directory that may be gone already, durably.
func remove(dir string, paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncDir(dir)
}

// link points active.key and active.crt to the active generation's files, for
// people and backups that look there.
func link(dir string, active *Generation) error {
	for name, target := range map[string]string{activeKey: active.ID + ".key", activeCert: active.ID + ".crt"} {
		path := filepath.Join(dir, name)
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
func writeAuthority(dir string, g *Generation, unknownBefore time.Time) error {
	tenure, err := newTenure(0)
	if err != nil {
		return err
	}
	err = durable.CreateDir(dir, func(staging string) error {
		if err := writeGeneration(staging, g); err != nil {
			return err
		}
		if err := writeRecord(filepath.Join(staging, stateFile), set{g}.state(standing{Tenure: tenure, UnknownBefore: unknownBefore})); err != nil {
			return err
		}
		return link(staging, g)
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is not empty: it may hold a CA that certificates in use depend on; move it away first: %w", dir, err)
	}
	return err
}
