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

// Restore makes this machine the signer that a backup is of, whose CA has a fingerprint:
// anybody can make a backup that the same key opens. Nothing of a signer may be there yet:
// the error is then fs.ErrExist, and what is there stays. What fails leaves nothing; the
// configuration, at path, is written last, so that without it nothing counts.
func Restore(in io.Reader, path, fingerprint string, identities []age.Identity, changes Changes, now time.Time) (*Restored, error) {
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
	p := plan{config: c}
	if err := p.read(r); err != nil {
		return nil, err
	}
	p.files = append(p.files, planned{path, text, 0o644})
	if err := p.free(); err != nil {
		return nil, err
	}
	if err := r.ledger(c.Ledger); err != nil {
		return nil, err
	}
	authority, err := signer.RestoreAuthority(c.Authority, p.authority, now)
	if err == nil {
		if is := authority.Active().Fingerprint(); is != fingerprint {
			err = fmt.Errorf("in this backup the CA %s signs, not %s", is, fingerprint)
		}
	}
	if err == nil {
		err = p.write()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.Ledger), os.RemoveAll(c.Authority))
	}
	return &Restored{c, authority}, nil
}

// plan is what is restored beside the ledger.
type plan struct {
	config    *config.Config
	authority map[string][]byte
	files     []planned // in the order in which they are written
}

type planned struct {
	path string
	data []byte
	mode fs.FileMode
}

// read takes everything before the ledger.
func (p *plan) read(r *reader) error {
	hostKey, err := r.only(hostKeyName)
	if err != nil {
		return err
	}
	keys, err := r.only(keysName)
	if err != nil {
		return err
	}
	trust, err := r.many(trustPrefix)
	if err != nil {
		return err
	}
	for i, path := range p.config.Trust {
		data := trust[strconv.Itoa(i)]
		if _, err := signer.ParseCertificates(data); err != nil {
			return fmt.Errorf("the backup's CA for %s: %w", path, err)
		}
		p.files = append(p.files, planned{path, data, 0o644})
	}
	p.files = append(p.files, planned{p.config.HostKey, hostKey, 0o600}, planned{p.config.AuthorizedKeys, keys, 0o644})
	p.authority, err = r.many(authorityDir)
	return err
}

// free says what is in the way.
func (p *plan) free() error {
	for _, f := range p.files {
		if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: this machine is a signer, or was to be one: move it away first: %w", f.path, fs.ErrExist)
		}
	}
	for _, dir := range []string{p.config.Authority, p.config.Ledger} {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not empty: move it away first: %w", dir, fs.ErrExist)
		}
	}
	return nil
}

// write writes the files. After an error none of them is left.
func (p *plan) write() error {
	owner, err := durable.OwnerOf(filepath.Dir(p.config.Authority))
	if err != nil {
		return err
	}
	for i, f := range p.files {
		create := durable.Create
		if f.mode == 0o600 { // the daemon alone reads it
			create = func(path string, data []byte, mode fs.FileMode) error {
				return durable.CreateFor(owner, path, data, mode)
			}
		}
		if err := create(f.path, f.data, f.mode); err != nil {
			for _, written := range p.files[:i] {
				err = errors.Join(err, os.Remove(written.path))
			}
			return err
		}
	}
	return nil
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
	if header.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("the backup has %q, which is no file of a backup", header.Name)
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
