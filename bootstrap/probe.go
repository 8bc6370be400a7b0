package bootstrap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/peers"
)

// checkRefusals makes sure that etcd's ports are open to whom they should be and
// to nobody else. client is a certificate of the CA that is no member's.
func (p *plan) checkRefusals(ctx context.Context, ours, client peers.Credentials) error {
	clients, others := member.Addresses(p.address().String())
	nobody := peers.Credentials{Roots: ours.Roots}
	for _, try := range []struct {
		who, scheme, host string
		config            *tls.Config
		open              bool
	}{
		{"a client with its certificate", "https", clients, client.TLS(), true},
		{"a client without a certificate", "https", clients, nobody.TLS(), false},
		{"plain HTTP", "http", clients, nil, false},
		{"a member", "https", others, ours.TLS(), true},
		{"a client's certificate on the peer port", "https", others, client.TLS(), false},
		{"no certificate on the peer port", "https", others, nobody.TLS(), false},
	} {
		err := peers.Ask(ctx, try.scheme, try.host, try.config)
		switch {
		case try.open && err != nil:
			return fmt.Errorf("%s is turned away: %w", try.who, err)
		case !try.open && err == nil:
			return fmt.Errorf("%s is let in at %s: look at %s and at what etcd says of it in its journal", try.who, try.host, environment)
		}
	}
	return nil
}

// checkMembers meets every member on both of its ports, as this one will.
func checkMembers(ctx context.Context, topology []place, self string) error {
	credentials, err := own.Credentials()
	if err != nil {
		return err
	}
	var problems []error
	for _, m := range topology {
		if m.name == self {
			continue
		}
		for _, port := range []string{m.port, member.ClientPort} {
			host := net.JoinHostPort(m.address.String(), port)
			if err := peers.Ask(ctx, "https", host, credentials.TLS()); err != nil {
				problems = append(problems, fmt.Errorf("%s at %s: %w", m.name, host, err))
			}
		}
	}
	return errors.Join(problems...)
}
