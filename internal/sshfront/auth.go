package sshfront

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// callerKey is the key of the Caller in a login's ssh.Permissions.ExtraData.
type callerKey struct{}

var errNoKey = errors.New("a key is needed")

// config makes the SSH side of one connection. It is new each time: gliderlabs
// adds the host key to it.
func (s *Server) config(c *conn) *ssh.ServerConfig {
	return &ssh.ServerConfig{
		Config:                  s.options.Profile.config(),
		ServerVersion:           "SSH-2.0-signerd",
		MaxAuthTries:            maxAuthTries,
		PublicKeyAuthAlgorithms: signatures,
		// gliderlabs turns NoClientAuth on whenever its own handlers are unset;
		// without this callback that would let everybody in.
		NoClientAuthCallback: func(ssh.ConnMetadata) (*ssh.Permissions, error) { return nil, errNoKey },
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			admission, err := s.admit(c, meta, key)
			if err != nil {
				return nil, err
			}
			return permissions(admission), nil
		},
		// What counts is asked for again: a connection may have offered other
		// keys, and been another user, before the one whose signature held.
		VerifiedPublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey, _ *ssh.Permissions, _ string) (*ssh.Permissions, error) {
			admission, err := s.admit(c, meta, key)
			if err != nil {
				return nil, err
			}
			p := permissions(admission)
			p.ExtraData = map[any]any{callerKey{}: admission.Caller}
			return p, nil
		},
		AuthLogCallback: func(_ ssh.ConnMetadata, _ string, err error) {
			if err == nil {
				s.count("login")
				c.loggedIn()
				c.ticket.loggedIn()
			}
		},
	}
}

func (s *Server) admit(c *conn, meta ssh.ConnMetadata, key ssh.PublicKey) (*Admission, error) {
	c.ticket.offers()
	if meta.User() != wire.User {
		return nil, errors.New("the user is not " + wire.User)
	}
	return s.options.Gate.Admit(Login{Source: c.source, Key: key})
}

func permissions(a *Admission) *ssh.Permissions {
	p := &ssh.Permissions{}
	if a.NoTouchRequired {
		p.Extensions = map[string]string{"no-touch-required": ""}
	}
	return p
}

// remoteAddress gives the address of a connection's other end.
func remoteAddress(c net.Conn) netip.Addr {
	if address, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return address.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
