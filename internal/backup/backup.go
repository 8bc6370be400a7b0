// Package backup puts all that makes a machine the signer into one file that only its
// recipients can read (https://age-encryption.org/v1), and back: the configuration, who
// may ask, the host key, the CA in all its generations, and what of the ledger can matter.
package backup

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/signer"
)

// The names of what is in a backup, in this order. The host key and what is trusted
// have the names of their files no more: where they go the configuration says.
const (
	configName    = "signerd.yaml"
	hostKeyName   = "host_key"
	keysName      = "authorized_keys"
	trustPrefix   = "trust/"
	authorityDir  = "authority/"
	ledgerDir     = "ledger/"
	largestInCore = 1 << 20 // of what is not the ledger's
)

// ParseRecipients reads who may open a backup. Each is an age recipient, or the public half
// of an SSH key that is Ed25519 or RSA, as ssh-keygen writes it; a backup can be made for all
// of them together.
func ParseRecipients(texts []string) ([]age.Recipient, error) {
	recipients := make([]age.Recipient, len(texts))
	for i, text := range texts {
		var err error
		if recipients[i], err = parseRecipient(strings.TrimSpace(text)); err != nil {
			return nil, err
		}
	}
	// Which kinds go together age says only here.
	if _, err := age.Encrypt(io.Discard, recipients...); err != nil {
		return nil, fmt.Errorf("no backup can be made for these: %w", err)
	}
	return recipients, nil
}

func parseRecipient(s string) (age.Recipient, error) {
	switch {
	case strings.Contains(s, "SECRET-KEY-") || strings.Contains(s, "PRIVATE KEY"):
		return nil, errors.New("that is a private key; a backup is made for its public half (age-keygen -y, ssh-keygen -y)")
	case strings.ContainsAny(s, "\r\n"):
		return nil, errors.New("a recipient is one line; give each its own")
	case strings.HasPrefix(s, "ssh-"):
		r, err := agessh.ParseRecipient(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no SSH key that a backup can be made for (Ed25519 or RSA): %w", s, err)
		}
		return r, nil
	}
	r, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(r) != 1 {
		return nil, fmt.Errorf("%q is neither an age recipient (age1..., without a plugin) nor an SSH key", s)
	}
	return r[0], nil
}

// ParseIdentities reads what opens a backup: a file of age-keygen, or an SSH private key
// without a passphrase.
func ParseIdentities(data []byte) ([]age.Identity, error) {
	if strings.HasPrefix(string(data), "-----BEGIN") {
		identity, err := agessh.ParseIdentity(data)
		if err != nil {
			return nil, fmt.Errorf("the SSH key cannot be used (a passphrase is taken off by ssh-keygen -p): %w", err)
		}
		return []age.Identity{identity}, nil
	}
	return age.ParseIdentities(strings.NewReader(string(data)))
}

// Source is a signer that is backed up. Its daemon may run.
type Source struct {
	Path      string // of its configuration
	Config    *config.Config
	Authority *signer.Authority
}

// Save makes a backup at path, which must not be there yet: the error is then fs.ErrExist.
// From then on the authority knows of it.
func (s Source) Save(path string, recipients []age.Recipient, now time.Time) error {
	read, write := io.Pipe()
	go func() { write.CloseWithError(s.write(write, recipients, now)) }()
	err := durable.CreateFrom(path, read, 0o600)
	read.CloseWithError(err) // whoever writes must not wait for ever
	if err != nil {
		return err
	}
	return s.note(now)
}

// Write is Save for whoever keeps the backup elsewhere.
func (s Source) Write(out io.Writer, recipients []age.Recipient, now time.Time) error {
	if err := s.write(out, recipients, now); err != nil {
		return err
	}
	return s.note(now)
}

func (s Source) note(now time.Time) error {
	return errors.Join(s.Authority.NoteBackup(now), durable.HandOver(s.Config.Authority))
}

func (s Source) write(out io.Writer, recipients []age.Recipient, now time.Time) error {
	encrypted, err := age.Encrypt(out, recipients...)
	if err != nil {
		return err
	}
	w := writer{tar.NewWriter(encrypted), now}
	files := []struct{ name, path string }{{configName, s.Path}, {hostKeyName, s.Config.HostKey}, {keysName, s.Config.AuthorizedKeys}}
	for i, path := range s.Config.Trust {
		files = append(files, struct{ name, path string }{fmt.Sprintf("%s%d", trustPrefix, i), path})
	}
	for _, f := range files {
		if err := w.file(f.name, f.path); err != nil {
			return err
		}
	}
	exported, err := s.Authority.Export()
	if err != nil {
		return err
	}
	for name, data := range exported {
		if err := w.data(authorityDir+name, data); err != nil {
			return err
		}
	}
	names, err := signer.LiveLedgerFiles(s.Config.Ledger, now)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.file(ledgerDir+name, filepath.Join(s.Config.Ledger, name)); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), encrypted.Close())
}

// writer writes an archive.
type writer struct {
	*tar.Writer
	now time.Time
}

func (w writer) begin(name string, size int64) error {
	return w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: w.now.Truncate(time.Second)})
}

func (w writer) data(name string, data []byte) error {
	if err := w.begin(name, int64(len(data))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// file adds a file as long as it is now: the daemon may be appending to it, and cuts off
// itself what is not whole.
func (w writer) file(name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(name, ledgerDir) && info.Size() > largestInCore {
		return fmt.Errorf("%s has %d bytes, more than a backup takes: %d", path, info.Size(), largestInCore)
	}
	if err := w.begin(name, info.Size()); err != nil {
		return err
	}
	_, err = io.Copy(w, io.LimitReader(file, info.Size()))
	return err
}
