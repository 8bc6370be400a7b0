// Package authkeys reads the list of SSH keys that may log in, and says what
// each of them may ask for. The format is OpenSSH's authorized_keys
// (sshd(8), AUTHORIZED_KEYS FILE FORMAT), parsed at least as strictly as sshd
// does, with one more option, permit. doc/authorized_keys.5.md describes it.
//
// Where sshd skips a line that it does not understand, the whole file is
// refused here: a line that somebody wrote and nobody reads is a surprise.
package authkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/wire"
)

// ErrDenied is wrapped by every reason why a listed key is not admitted.
var ErrDenied = errors.New("denied")

// ErrUnlisted says that no line names the key.
var ErrUnlisted = fmt.Errorf("%w: the key is not in authorized_keys", ErrDenied)

// Keys is one authorized_keys file that parsed as a whole.
type Keys struct{ lines []*line }

// line is one key, or one certificate authority, and what bounds it.
type line struct {
	number int
	key    ssh.PublicKey
	options
}

// Load reads the file at path. The file and the directories above it must be
// writable by nobody but root and the process's user (sshd_config(5),
// StrictModes). The error lists everything that is wrong.
func Load(path string) (*Keys, error) {
	data, err := durable.ReadTrusted(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading authorized_keys: %w: /usr/share/doc/signerd/examples/authorized_keys is one to begin with", err)
	} else if err != nil {
		return nil, fmt.Errorf("reading authorized_keys: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a file's content; name stands for it in errors, with the line.
func Parse(name string, data []byte) (*Keys, error) {
	var keys Keys
	var problems *multierror.Error
	number := 0
	for text := range strings.SplitSeq(string(data), "\n") {
		number++
		text = strings.Trim(strings.TrimSuffix(text, "\r"), " \t")
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		parsed, err := parseLine(text)
		if err == nil {
			err = keys.add(number, parsed)
		}
		if err != nil {
			problems = multierror.Append(problems, fmt.Errorf("%s:%d: %w", name, number, err))
		}
	}
	if err := problems.ErrorOrNil(); err != nil {
		return nil, err
	}
	return &keys, nil
}

// add refuses a line that an earlier one hides.
func (k *Keys) add(number int, l *line) error {
	for _, earlier := range k.lines {
		if earlier.authority == l.authority && earlier.unbounded() && sameKey(earlier.key, l.key) {
			return fmt.Errorf("line %d always admits the same key, so this one never counts: make one line of the two", earlier.number)
		}
	}
	l.number = number
	k.lines = append(k.lines, l)
	return nil
}

// Len gives the number of keys.
func (k *Keys) Len() int { return len(k.lines) }

// Admit gives what a key may do that logs in from source at now. The first
// line that admits it counts, as in sshd. The error wraps ErrDenied.
func (k *Keys) Admit(key ssh.PublicKey, source netip.Addr, now time.Time) (*Grant, error) {
	if certificate, ok := key.(*ssh.Certificate); ok {
		return k.admitCertificate(certificate, source, now)
	}
	denial := ErrUnlisted
	for _, l := range k.lines {
		if l.authority || !sameKey(l.key, key) {
			continue
		}
		if err := l.admits(source, now); err != nil {
			denial = fmt.Errorf("line %d: %w", l.number, err)
			continue
		}
		return &Grant{
			Key:             ssh.FingerprintSHA256(key),
			Line:            l.number,
			Forced:          l.command,
			NoTouchRequired: l.noTouchRequired,
			permit:          l.permit,
		}, nil
	}
	return nil, denial
}

// unbounded says whether a line admits its key from everywhere, for ever.
func (l *line) unbounded() bool {
	return l.from == nil && l.expires.IsZero() && l.principals == nil
}

// admits checks what bounds a line as a whole: from= and expiry-time=.
func (l *line) admits(source netip.Addr, now time.Time) error {
	if l.from != nil && !l.from.match(source) {
		return fmt.Errorf("%w: from= does not list %s", ErrDenied, source)
	}
	if !l.expires.IsZero() && !now.Before(l.expires) {
		return fmt.Errorf("%w: expired at %s", ErrDenied, l.expires.Format(time.RFC3339))
	}
	return nil
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// Grant is what one admitted key may do.
type Grant struct {
	Key             string // fingerprint as ssh-keygen -l prints it, or which certificate it is
	Line            int    // of authorized_keys
	Forced          string // replaces whatever is asked, unless empty
	NoTouchRequired bool   // a security key may sign without being touched

	permit     permit
	principals []string // of a certificate: the only client names; nil: no bound
}

// Allows says whether the key may send a command from source.
func (g *Grant) Allows(command wire.Command, source wire.Address) bool {
	if g.principals != nil && command.Verb == wire.Client && !slices.Contains(g.principals, command.Name) {
		return false
	}
	return g.permit.allows(command, source)
}

// Owns says whether name is literally the only name that the key may ask for:
// then the key speaks for that name, and may have it for another certificate
// key.
func (g *Grant) Owns(name string) bool { return g.permit.owns(name) }
