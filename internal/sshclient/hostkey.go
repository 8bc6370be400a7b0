package sshclient

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// HostKey says by what the signer is known. A fingerprint is the last word;
// without one the files are asked.
type HostKey struct {
	Fingerprint string   // as ssh-keygen -l prints it: SHA256:...; or empty
	Files       []string // known_hosts files, sshd(8); those that are missing are left out
}

// UnknownKeyError says that nothing is known of a host's key. A person may be
// asked, and the fingerprint then pinned for another try: a handshake does not
// wait for people.
type UnknownKeyError struct{ Host, Fingerprint string }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("%v of %s is unknown: %s; compare it with what init printed", ErrHostKey, e.Host, e.Fingerprint)
}

func (e *UnknownKeyError) Unwrap() error { return ErrHostKey }

// check is an ssh.HostKeyCallback. Its error wraps ErrHostKey.
func (h HostKey) check(host string, remote net.Addr, key ssh.PublicKey) error {
	fingerprint := ssh.FingerprintSHA256(key)
	if h.Fingerprint != "" {
		if fingerprint != h.Fingerprint {
			return fmt.Errorf("%w of %s is %s, not the pinned %s: another machine answers there, or the signer was made anew", ErrHostKey, host, fingerprint, h.Fingerprint)
		}
		return nil
	}
	err := h.lookUp(host, remote, key)
	unknown, ok := errors.AsType[*knownhosts.KeyError](err)
	switch {
	case err == nil:
		return nil
	case ok && len(unknown.Want) > 0:
		return fmt.Errorf("%w of %s is %s, and %s:%d has another: another machine answers there, or the signer was made anew",
			ErrHostKey, host, fingerprint, unknown.Want[0].Filename, unknown.Want[0].Line)
	case !ok:
		return fmt.Errorf("%w of %s: %w", ErrHostKey, host, err)
	}
	return &UnknownKeyError{host, fingerprint}
}

// lookUp asks the known_hosts files.
func (h HostKey) lookUp(host string, remote net.Addr, key ssh.PublicKey) error {
	var files []string
	for _, file := range h.Files {
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	callback, err := knownhosts.New(files...)
	if err != nil {
		return err
	}
	return callback(host, remote, key)
}

// KnownHostsLine gives the line of a known_hosts file for a signer's key.
func KnownHostsLine(address string, key ssh.PublicKey) string {
	return strings.TrimSpace(knownhosts.Line([]string{address}, key)) + "\n"
}
