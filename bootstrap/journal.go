package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/crashpoint"
	"github.com/signerd/signerd/internal/durable"
)

// journalVersion is the version of the journal's form.
const journalVersion = 1

// journal is how far first-boot has come. Every change of it is durable before
// the next step begins.
type journal struct {
	Version int       `json:"version"`
	Plan    plan      `json:"plan"`
	Begun   time.Time `json:"begun"`
	Done    []string  `json:"done"`             // the steps
	Found   found     `json:"found"`            // what was there before
	Undoing bool      `json:"undoing,omitzero"` // a join that failed is being undone

	dir string
}

// found is what the machine had before anything changed.
type found struct {
	Fresh   []string          `json:"fresh,omitempty"`  // data of the distribution's etcd that nobody used
	Moved   map[string]string `json:"moved,omitempty"`  // of those, from where to where
	EtcdUp  bool              `json:"etcd_up,omitzero"` // the distribution's etcd ran
	Enabled bool              `json:"enabled,omitzero"` // it was to start at boot
}

func journalPath(dir string) string { return filepath.Join(dir, "journal.json") }
func receiptPath(dir string) string { return filepath.Join(dir, "receipt.json") }

// readJournal gives the journal in dir, or nil if nothing was begun.
func readJournal(dir string) (*journal, error) {
	j, err := recorded[journal](journalPath(dir))
	if err != nil || j == nil {
		return nil, err
	}
	j.dir = dir
	if j.Version != journalVersion {
		return nil, fmt.Errorf("reading the journal: %s has the version %d, and this first-boot knows %d: go on with the one that began", journalPath(dir), j.Version, journalVersion)
	}
	return j, nil
}

// write makes the journal as it is durable.
func (j *journal) write() error {
	if err := record(journalPath(j.dir), j, 0o600); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// recorded reads a state file; nil if there is none.
func recorded[T any](path string) (*T, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	state := new(T)
	if err := json.Unmarshal(data, state); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return state, nil
}

// record writes a state file. Tests cut the power around it.
func record(path string, state any, mode fs.FileMode) error {
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	crashpoint.Here("before")
	if err := durable.Replace(path, append(data, '\n'), mode); err != nil {
		return err
	}
	crashpoint.Here("after")
	return nil
}

func (j *journal) done(step string) bool { return slices.Contains(j.Done, step) }

// mark records that a step is done.
func (j *journal) mark(step string) error {
	if j.done(step) {
		return nil
	}
	j.Done = append(j.Done, step)
	return j.write()
}

// forget ends a join that was undone.
func (j *journal) forget() error {
	if err := os.Remove(journalPath(j.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the journal: %w", err)
	}
	return durable.SyncDir(j.dir)
}

// ReadReceipt gives what was done on this machine; nil if nothing was finished.
func ReadReceipt() (*Summary, error) { return readReceipt(StateDir) }

func readReceipt(dir string) (*Summary, error) { return recorded[Summary](receiptPath(dir)) }

// writeReceipt says that all is done. From here on nothing runs again.
func writeReceipt(dir string, s *Summary) error {
	if err := record(receiptPath(dir), s, 0o644); err != nil {
		return fmt.Errorf("writing the receipt: %w", err)
	}
	return nil
}
