// Package sshfront is the SSH server in front of signerd's commands: it lets
// in whom its Gate admits, hands each session's command to the caller that the
// gate made, and gives back the answer. It knows no command.
//
// It is the only package that imports gliderlabs/ssh, and sets every hook of
// it: by default that library lets in who has no key when only a callback asks
// for one, keeps what it learned of keys that were merely offered, and knows no
// time limit for a login.
package sshfront

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// Login is somebody at the door: a key that a connection offers, or proved to
// have.
type Login struct {
	Source netip.Addr // without zone, never IPv4-mapped
	Key    ssh.PublicKey
}

// ErrInputOpen says that a client did not end its input in time.
var ErrInputOpen = errors.New("the input did not end in time")

// Gate decides who may log in. It is asked for each key that is offered and
// again, for what counts, when a signature has proved one: so it must not
// remember.
type Gate interface {
	Admit(Login) (*Admission, error)
}

// Admission lets a key in.
type Admission struct {
	Caller          Caller
	NoTouchRequired bool // a security key may sign without being touched
}

// Caller is an admitted key, with what it may do.
type Caller interface {
	// Call runs a command line as the client sent it, empty for a shell. An
	// error that is a *wire.Error is shown to the client, any other is
	// wire.Internal to it.
	Call(ctx context.Context, command string, stdin Stdin) (wire.Answer, error)
	// String names the key for the log.
	String() string
}

// Stdin gives what a client sends until it ends its input or exceeds
// wire.MaxRequest by a byte. It waits for that, or for the context; a client
// that takes too long to end is ErrInputOpen.
type Stdin func(context.Context) ([]byte, error)
