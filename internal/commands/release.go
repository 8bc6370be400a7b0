package commands

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
)

// release ends the hold of a name. That nobody holds it is success, and said.
func release(ctx context.Context, c *caller, command wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	text, err := c.release(ctx, command.Name)
	return lines(text), err
}

var errHalfRemoved = errors.New("removed, but its name is still held")

// remove takes a member out of etcd and releases its name. That nobody of that
// name is there is success, and said. By the key of its certificate a member
// takes back its own join, until it votes.
func remove(ctx context.Context, c *caller, command wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	if err := c.desk.signer.Stopped(); err != nil {
		return wire.Answer{}, err
	}
	take := c.desk.cluster.Remove
	if c.grant == nil {
		take = c.desk.cluster.Withdraw
	}
	removed, err := take(ctx, command.Name)
	if err != nil {
		return wire.Answer{}, err
	}
	released, err := c.release(ctx, command.Name)
	if err != nil && removed {
		return wire.Answer{}, fmt.Errorf("%w: %w", errHalfRemoved, err)
	}
	text := "etcd has no member " + command.Name
	if removed {
		text = "removed " + command.Name + " from etcd"
	}
	return lines(text + "; " + released), err
}

// release counts only in the ledger of the signer that signs.
func (c *caller) release(ctx context.Context, name string) (string, error) {
	if err := c.desk.signer.Stopped(); err != nil {
		return "", err
	}
	held, err := c.desk.signer.Ledger().Release(ctx, c.desk.now(), name, c.asker())
	if err != nil {
		return "", err
	}
	if held == nil {
		return fmt.Sprintf("nobody held %s", name), nil
	}
	return fmt.Sprintf("released %s, held until %s by the key %s", name, held.NotAfter.Format(time.RFC3339), held.Key), nil
}
