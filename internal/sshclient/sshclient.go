// Package sshclient asks a signer, as the stock ssh does: it knows the signer by
// a host key that was pinned, that a known_hosts file has, or that a person said
// yes to, and nothing is sent to any other.
package sshclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/wire"
)

// The classes of failure that callers tell apart. A refusal by the signer is a
// *wire.Error.
var (
	// ErrUnreachable is wrapped when nobody answers, or the connection breaks:
	// what was asked may have happened.
	ErrUnreachable = errors.New("the signer cannot be reached")
	// ErrHostKey is wrapped when whoever answers is not known to be the signer.
	ErrHostKey = errors.New("the signer's host key")
	// ErrLogin is wrapped when the signer does not admit our key.
	ErrLogin = errors.New("the signer does not admit this key")
)

// Options say whom to ask, and as whom.
type Options struct {
	Address string     // host:port
	Source  netip.Addr // the address to ask from; invalid: the system chooses
	Keys    []ssh.Signer
	HostKey HostKey
}

// dialTimeout bounds the way to a session: connection, key exchange and login.
const dialTimeout = 15 * time.Second

// maxAnswer bounds what a signer may answer, in bytes.
const maxAnswer = 1 << 20

// Client is a connection to a signer.
type Client struct {
	conn    *ssh.Client
	hostKey ssh.PublicKey
}

// Dial logs in. The error wraps ErrUnreachable, ErrHostKey or ErrLogin.
func Dial(ctx context.Context, o Options) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := net.Dialer{}
	if o.Source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))
	}
	tcp, err := dialer.DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := tcp.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, tcp.Close())
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	c := &Client{}
	var unknown error
	conn, channels, requests, err := ssh.NewClientConn(tcp, o.Address, &ssh.ClientConfig{
		User: wire.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(o.Keys...)},
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			c.hostKey = key
			unknown = o.HostKey.check(host, remote, key)
			return unknown
		},
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}, // what a signer may have
	})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = tcp.Close() // x/crypto/ssh has closed it mostly
		if unknown != nil {
			return nil, unknown
		}
		return nil, explain(o.Address, err)
	}
	if err := tcp.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.conn = ssh.NewClient(conn, channels, requests)
	return c, nil
}

// explain says what a failed handshake was about.
func explain(address string, err error) error {
	if strings.Contains(err.Error(), "unable to authenticate") { // x/crypto/ssh has no value for it
		return fmt.Errorf("%w: %s", ErrLogin, address)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, address, err)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// HostKeyOf gives the key that the signer proved to have.
func (c *Client) HostKeyOf() ssh.PublicKey { return c.hostKey }

// Source gives the address that the signer sees this client at, unless it is
// translated on the way.
func (c *Client) Source() netip.Addr {
	address, _ := netip.ParseAddrPort(c.conn.LocalAddr().String())
	return address.Addr().Unmap()
}

// Close ends the connection.
func (c *Client) Close() error { return ignoreClosed(c.conn.Close()) }

// answerPatience is how long an answer may take. A signer's limits give a command five
// minutes at the most.
const answerPatience = 6 * time.Minute

// Run sends one command with stdin and gives stdout, whole, and the note on
// stderr. A status other than 0 is a *wire.Error; what breaks on the way wraps
// ErrUnreachable.
func (c *Client) Run(ctx context.Context, command wire.Command, stdin []byte) (stdout []byte, note string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	session, err := c.open(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("%w: the connection broke: %w", ErrUnreachable, err)
	}
	defer session.Close() //nolint:errcheck // the status says it all
	var out, errs limited
	session.Stdin, session.Stdout, session.Stderr = bytes.NewReader(stdin), &out, &errs
	err = session.Run(command.String())
	note = printable(strings.TrimPrefix(strings.TrimSpace(errs.buffer.String()), "signerd: "))
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		return nil, "", wire.Errorf(wire.Status(exit.ExitStatus()), "%s", note)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: the connection broke: %w", ErrUnreachable, errors.Join(ctx.Err(), err))
	}
	return out.buffer.Bytes(), note, nil
}

// open opens a session. x/crypto/ssh waits for the answer for ever where the connection
// ends at that very moment: it forgets the channels that it knows, and only then closes.
func (c *Client) open(ctx context.Context) (*ssh.Session, error) {
	type opened struct {
		session *ssh.Session
		err     error
	}
	answer := make(chan opened, 1)
	go func() {
		session, err := c.conn.NewSession()
		answer <- opened{session, err}
	}()
	ended := make(chan error, 1)
	go func() { ended <- c.conn.Wait() }()
	select {
	case o := <-answer:
		return o.session, o.err
	case err := <-ended:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// printable takes out what could move a terminal's cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// limited is a buffer that refuses more than maxAnswer. It does not embed the
// buffer: that would read past the limit by itself (io.ReaderFrom).
type limited struct{ buffer bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.buffer.Len()+len(p) > maxAnswer {
		return 0, errors.New("the answer is too long")
	}
	return l.buffer.Write(p)
}

// LoadKey reads a private key, in any form that ssh reads.
func LoadKey(path string) (ssh.Signer, error) {
	data, err := durable.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(data)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return nil, fmt.Errorf("%s has a passphrase; make a key without one for this machine: ssh-keygen -t ed25519", path)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// FindKeys gives the keys that ssh would take by itself from a user's home
// directory. That there is none is an error.
func FindKeys(home string) ([]ssh.Signer, error) {
	var keys []ssh.Signer
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		path := filepath.Join(home, ".ssh", name)
		key, err := LoadKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no SSH key in %s", filepath.Join(home, ".ssh"))
	}
	return keys, nil
}
