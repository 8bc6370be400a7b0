package signer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/signerd/signerd/internal/wire"
)

// SelfName is the name under which signerd itself is a client of etcd.
const SelfName = "signerd"

// Subject is whom a certificate is for, as one of the profiles has it. It
// comes from Clients.Subject or MemberSubject.
type Subject struct {
	profile   *profile
	name      string
	addresses []wire.Address
}

// Name gives the subject's name.
func (s Subject) Name() string { return s.name }

// Clients are the patterns that the name of a client must match.
type Clients []wire.Glob

// Subject accepts the name of a client that matches a pattern and is nobody
// else's. The error wraps wire.ErrName.
func (c Clients) Subject(name string) (Subject, error) {
	canonical, err := wire.ParseClientName(name)
	switch {
	case err != nil || canonical != name:
		return Subject{}, fmt.Errorf("%w: %q is not the name of a client", wire.ErrName, name)
	case strings.HasPrefix(name, wire.MemberPrefix):
		return Subject{}, fmt.Errorf("%w: %s is the name of a member; ask for %s=ADDRESS", wire.ErrName, name, name)
	// root is the superuser of etcd's RBAC, localhost is in every member's
	// certificate.
	case name == "root" || name == SelfName || name == "localhost" || wire.IsCommandWord(name):
		return Subject{}, fmt.Errorf("%w: %s is reserved", wire.ErrName, name)
	// A client that was called like PeerName would open the peer port.
	case strings.HasSuffix("."+name, internalSuffix):
		return Subject{}, fmt.Errorf("%w: names that end in %s are reserved", wire.ErrName, internalSuffix)
	case !slices.ContainsFunc(c, func(g wire.Glob) bool { return g.Match(name) }):
		return Subject{}, fmt.Errorf("%w: %s does not match the client names of this cluster (%s)", wire.ErrName, name, c)
	}
	return Subject{profile: client, name: name}, nil
}

func (c Clients) String() string {
	words := make([]string, len(c))
	for i, glob := range c {
		words[i] = glob.String()
	}
	return strings.Join(words, ", ")
}

// MemberSubject accepts the name and the addresses of an etcd member. The
// error wraps wire.ErrName.
func MemberSubject(name string, addresses []wire.Address) (Subject, error) {
	if _, err := wire.ParseMemberName(name); err != nil {
		return Subject{}, fmt.Errorf("%w: %q is not the name of a member", wire.ErrName, name)
	}
	if len(addresses) == 0 {
		return Subject{}, fmt.Errorf("%w: member %s has no address", wire.ErrName, name)
	}
	return Subject{profile: member, name: name, addresses: addresses}, nil
}

// selfSubject is signerd's own.
func selfSubject() Subject { return Subject{profile: self, name: SelfName} }
