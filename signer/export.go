package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// Export gives the authority as the files that RestoreAuthority takes, by name.
func (a *Authority) Export() (map[string][]byte, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	state, err := durable.EncodeState(a.set.state(a.standing))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{stateFile: state}
	for _, g := range a.set {
		key, err := encodePrivateKey(g.key)
		if err != nil {
			return nil, err
		}
		files[g.ID+".key"], files[g.ID+".crt"] = key, EncodeCertificate(g.Certificate.Raw)
		if g.Cross != nil {
			files[g.ID+".cross.crt"] = EncodeCertificate(g.Cross.Raw)
		}
	}
	return files, nil
}

// exported are the names of the files that an authority may have.
var exported = regexp.MustCompile(`^(` + idPattern + `\.(key|crt|cross\.crt)|` + regexp.QuoteMeta(stateFile) + `)$`)

// RestoreAuthority makes dir, which must not hold anything yet, what Export gave. It has
// to take over before it signs, and what was signed before may not be in the ledger.
func RestoreAuthority(dir string, files map[string][]byte, now time.Time) (*Authority, error) {
	err := durable.CreateDir(dir, func(staging string) error {
		for name, data := range files {
			if !exported.MatchString(name) {
				return fmt.Errorf("a CA has no file %q", name)
			}
			if err := durable.Create(filepath.Join(staging, name), data, 0o600); err != nil {
				return err
			}
		}
		state, err := readState(staging)
		if err != nil {
			return err
		}
		all, err := loadSet(staging, state, now)
		if err != nil {
			return err
		}
		standing := standing{Tenure: state.Tenure, Restored: true, UnknownBefore: now.UTC().Truncate(time.Second), Paused: state.Paused}
		return errors.Join(writeRecord(filepath.Join(staging, stateFile), all.state(standing)), link(staging, all.active()))
	})
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is not empty: move it away first: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("restoring the CA: %w", err)
	}
	return LoadAuthority(dir, now)
}

// liveLedger is how far back lines of the ledger can matter to who holds what: members'
// certificates live for a month, and are renewed when a third of that is gone.
const liveLedger = 60 * 24 * time.Hour

// LiveLedgerFiles gives the names of the files of a ledger that can matter at now, in
// their order; none if there is no ledger yet.
func LiveLedgerFiles(dir string, now time.Time) ([]string, error) {
	names, err := ledgerFiles(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	first := now.Add(-liveLedger).UTC().Format(fileLayout)
	return slices.DeleteFunc(names, func(name string) bool { return name < first }), nil
}

// IsLedgerFile says whether a file of a ledger may be called so.
func IsLedgerFile(name string) bool { return filePattern.MatchString(name) }

// backupFile says what the last backup of an authority has.
const backupFile = "backup.json"

// Backup is the last backup that was made.
type Backup struct {
	Version     int               `json:"version"`
	Time        time.Time         `json:"time"`
	Generations []generationState `json:"generations"`
}

// NoteBackup keeps that a backup of the authority was made.
func (a *Authority) NoteBackup(now time.Time) error {
	return writeRecord(filepath.Join(a.dir, backupFile), Backup{stateVersion, now.UTC().Truncate(time.Second), a.current().generations()})
}

// Covers says whether a backup has the authority as it is: its generations in their
// roles. One of before a step would bring back what that ended.
func (a *Authority) Covers(b *Backup) bool {
	return slices.Equal(b.Generations, a.current().generations())
}

// LastBackup gives the last backup of the authority; nil if there is none.
func (a *Authority) LastBackup() (*Backup, error) {
	b := &Backup{}
	err := readRecord(filepath.Join(a.dir, backupFile), b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
