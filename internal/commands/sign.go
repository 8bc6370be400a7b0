package commands

import (
	"context"
	"fmt"
	"slices"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// signClient answers the name of a client with its certificate.
func signClient(ctx context.Context, c *caller, command wire.Command, stdin sshfront.Stdin) (wire.Answer, error) {
	subject, err := c.desk.clients.Subject(command.Name)
	if err != nil {
		return wire.Answer{}, err
	}
	if slices.Contains(c.desk.cluster.Names(), command.Name) {
		return wire.Answer{}, fmt.Errorf("%w: %s is the name of a member of etcd", wire.ErrName, command.Name)
	}
	order, err := c.order(ctx, subject, stdin)
	if err != nil {
		return wire.Answer{}, err
	}
	return c.issue(ctx, order)
}

// signMember answers the name and addresses of a member with its certificate.
// What repeats the member's last certificate is a renewal and needs no etcd:
// so members whose certificates all expired come back.
func signMember(ctx context.Context, c *caller, command wire.Command, stdin sshfront.Stdin) (wire.Answer, error) {
	subject, err := signer.MemberSubject(command.Name, command.Addresses)
	if err != nil {
		return wire.Answer{}, err
	}
	order, err := c.order(ctx, subject, stdin)
	if err != nil {
		return wire.Answer{}, err
	}
	ledger := c.desk.signer.Ledger()
	// What will be refused must not reach etcd first.
	if err := c.desk.signer.Check(c.desk.now(), order); err != nil {
		return wire.Answer{}, err
	}
	if !ledger.Repeats(subject, order.Key) {
		// A member's own key speaks for it by the request's signature. A
		// request is no secret; SECURITY.md says what a copy of one is good for.
		known := ledger.Hold(command.Name)
		joiner := peers.Joiner{
			Name:      command.Name,
			Addresses: command.Addresses,
			Source:    c.source,
			Proven:    order.Claim == signer.Supersede || known != nil && known.Key == order.Key.Fingerprint(),
		}
		if err := c.desk.cluster.Register(ctx, c.desk.now(), joiner); err != nil {
			return wire.Answer{}, err
		}
	}
	return c.issue(ctx, order)
}

// order reads the request and says by what right the caller takes the name.
func (c *caller) order(ctx context.Context, subject signer.Subject, stdin sshfront.Stdin) (signer.Order, error) {
	body, err := stdin(ctx)
	if err != nil {
		return signer.Order{}, err
	}
	request, err := signer.ParseRequest(body)
	if err != nil {
		return signer.Order{}, err
	}
	claim := signer.Ask
	switch {
	case c.grant == nil:
		claim = signer.Renew
	case c.grant.Owns(subject.Name()):
		claim = signer.Supersede
	}
	return signer.Order{Subject: subject, Key: request.Key(), Claim: claim, Asker: c.asker()}, nil
}

func (c *caller) issue(ctx context.Context, order signer.Order) (wire.Answer, error) {
	issued, err := c.desk.signer.Issue(ctx, c.desk.now(), order)
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Output: issued.PEM, Serial: issued.Serial}, nil
}
