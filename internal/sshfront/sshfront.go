// Package sshfront is the SSH server in front of signerd's commands: it lets
// in whom its Gate admits, hands each session's command to the caller that the
// gate made, and gives back the answer. It knows no command.
//
// It is the only package that imports gliderlabs/ssh, whose defaults are not
// used: every hook is set, for the reasons that traps_test.go shows. Nothing
// that was stored while keys were only offered is ever used.
package sshfront

import (
	"context"
	"net/netip"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// Login is somebody at the door: a key that a connection offers, or proved to
// have.
type Login struct {
	User   string
	Source netip.Addr // without zone, never IPv4-mapped
	Key    ssh.PublicKey
}

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
// wire.MaxRequest by a byte. It waits for that, or for the context.
type Stdin func(context.Context) ([]byte, error)
