package signer

import (
	"fmt"
	"net/url"
	"strings"
)

// Identity is the base of the URI that every certificate carries.
type Identity struct{ base url.URL }

// DefaultIdentity is a cluster's identity where none is configured.
func DefaultIdentity(cluster string) Identity {
	return Identity{url.URL{Scheme: "etcd", Host: cluster + internalSuffix}}
}

// ParseIdentity reads an identity such as spiffe://prod.example or
// netsy://my-cluster: a scheme and a host in lower case, for all but netsy a
// path too; no user, port, query, fragment or trailing slash, which SPIFFE (its
// ID standard, 2.1 to 2.3) and Netsy refuse.
func ParseIdentity(s string) (Identity, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Identity{}, fmt.Errorf("identity %q is not a URI", s)
	case u.Scheme == "" || u.Host == "" || u.String() != s:
		return Identity{}, fmt.Errorf("identity %q is not of the form scheme://host", s)
	case s != strings.ToLower(s):
		return Identity{}, fmt.Errorf("identity %q has upper-case letters", s)
	case u.User != nil || u.Port() != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "":
		return Identity{}, fmt.Errorf("identity %q has more than scheme, host and path", s)
	case strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "":
		return Identity{}, fmt.Errorf("identity %q: its host may have letters, digits, dots, hyphens and underscores", s)
	case strings.HasSuffix(s, "/") || strings.Contains(u.Path, "//") || strings.Contains(u.Path+"/", "/./") || strings.Contains(u.Path+"/", "/../"):
		return Identity{}, fmt.Errorf("identity %q has an empty or relative segment, or ends in a slash", s)
	case u.Scheme == "netsy" && u.Path != "":
		return Identity{}, fmt.Errorf("identity %q: netsy allows no path", s)
	}
	return Identity{*u}, nil
}

func (i Identity) String() string { return i.base.String() }

// of gives the URI of a name in a role.
func (i Identity) of(role, name string) *url.URL {
	u := i.base
	u.Path += "/" + role + "/" + name
	return &u
}
