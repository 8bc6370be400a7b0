package backup

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/signer"
)

// Restored is what a machine was made of.
type Restored struct {
	Config    *config.Config
	Authority *signer.Authority
}

// Changes are what is other on the machine that a backup is restored on; empty: nothing.
type Changes struct {
	Etcd   []string // client URLs
	Listen string
}

// Restore makes this machine the signer that a backup is of. Nothing of it may be there
// yet: the error is then fs.ErrExist, and what is there stays. The configuration, at path,
// is written last, so that without it nothing counts.
func Restore(in io.Reader, path string, identities []age.Identity, changes Changes, now time.Time) (*Restored, error) {
	decrypted, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, fmt.Errorf("opening the backup: %w", err)
	}
	r := &reader{archive: tar.NewReader(decrypted)}
	text, err := r.only(configName)
	if err != nil {
		return nil, err
	}
	if text, err = config.Change(text, changes.Listen, changes.Etcd); err != nil {
		return nil, err
	}
	c, err := config.Parse(path, text)
	if err != nil {
		return nil, err
	}
	for _, target := range []string{path, c.HostKey, c.AuthorizedKeys} {
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: this machine is a signer, or was to be one: move it away first: %w", target, fs.ErrExist)
		}
	}
	hostKey, err := r.only(hostKeyName)
	if err != nil {
		return nil, err
	}
	keys, err := r.only(keysName)
	if err != nil {
		return nil, err
	}
	trust, err := r.many(trustPrefix)
	if err != nil {
		return nil, err
	}
	files, err := r.many(authorityDir)
	if err != nil {
		return nil, err
	}
	authority, err := signer.RestoreAuthority(c.Authority, files, now)
	if err != nil {
		return nil, err
	}
	if err := r.ledger(c.Ledger); err != nil {
		return nil, err
	}
	for i, target := range c.Trust {
		if err := durable.Replace(target, trust[strconv.Itoa(i)], 0o644); err != nil {
			return nil, err
		}
	}
	owner, err := durable.OwnerOf(filepath.Dir(c.Authority))
	if err != nil {
		return nil, err
	}
	return &Restored{c, authority}, errors.Join(durable.CreateFor(owner, c.HostKey, hostKey, 0o600),
		durable.Create(c.AuthorizedKeys, keys, 0o644), durable.Create(path, text, 0o644))
}

// reader reads an archive in the order in which it was written.
type reader struct {
	archive *tar.Reader
	next    *tar.Header // read and not taken yet
}

// peek gives what comes next; nil at the end.
func (r *reader) peek() (*tar.Header, error) {
	if r.next != nil {
		return r.next, nil
	}
	header, err := r.archive.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the backup: %w", err)
	}
	r.next = header
	return header, nil
}

// only takes a file that must come next.
func (r *reader) only(name string) ([]byte, error) {
	header, err := r.peek()
	if err == nil && (header == nil || header.Name != name) {
		err = fmt.Errorf("the backup lacks %s: it is of another version, or of something else", name)
	}
	if err != nil {
		return nil, err
	}
	return r.take()
}

// many takes the files below a name that come next.
func (r *reader) many(prefix string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for {
		header, err := r.peek()
		if err != nil {
			return nil, err
		}
		if header == nil || !strings.HasPrefix(header.Name, prefix) {
			return files, nil
		}
		if files[strings.TrimPrefix(header.Name, prefix)], err = r.take(); err != nil {
			return nil, err
		}
	}
}

func (r *reader) take() ([]byte, error) {
	header := r.next
	r.next = nil
	if header.Size > largestInCore {
		return nil, fmt.Errorf("the backup has %d bytes of %s", header.Size, header.Name)
	}
	return io.ReadAll(r.archive)
}

// ledger takes the rest, which is the ledger's.
func (r *reader) ledger(dir string) error {
	return durable.CreateDir(dir, func(staging string) error {
		for {
			header, err := r.peek()
			if err != nil || header == nil {
				return err
			}
			name := strings.TrimPrefix(header.Name, ledgerDir)
			if !signer.IsLedgerFile(name) {
				return fmt.Errorf("the backup has %q, which is no file of a ledger", header.Name)
			}
			r.next = nil
			if err := durable.CreateFrom(filepath.Join(staging, name), r.archive, 0o600); err != nil {
				return err
			}
		}
	})
}
