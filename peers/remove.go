package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Remove takes a member out of the cluster, whether it has started or not, and
// forgets its intent. It says whether one of that name was there. The error
// wraps ErrAway or ErrBusy.
func (c *Cluster) Remove(ctx context.Context, name string) (removed bool, err error) {
	return c.remove(ctx, name, nothing, func(m Member, voters int) error {
		if voters == 1 && !m.Learner {
			return fmt.Errorf("%w: %s is the last member that votes; without it there is no cluster", ErrBusy, name)
		}
		return nil
	})
}

// Withdraw is Remove for a member that does not vote yet, and leaves one that
// does. The error wraps ErrAway, ErrBusy or, for a voter, ErrTaken.
func (c *Cluster) Withdraw(ctx context.Context, name string) (removed bool, err error) {
	return c.withdraw(ctx, name, nothing)
}

// GiveUp is Withdraw for a member whose join died. release frees its name, and
// may be called again after a crash: the intent is forgotten only after it.
func (c *Cluster) GiveUp(ctx context.Context, name string, release func(context.Context) error) error {
	_, err := c.withdraw(ctx, name, release)
	return err
}

func nothing(context.Context) error { return nil }

func (c *Cluster) withdraw(ctx context.Context, name string, release func(context.Context) error) (removed bool, err error) {
	return c.remove(ctx, name, release, func(m Member, _ int) error {
		if !m.Learner {
			return fmt.Errorf("%w: %s votes already; from now on only a key that may remove it can", ErrTaken, name)
		}
		return nil
	})
}

// remove takes the members of a name out that may says may go, calls release,
// and forgets the intent.
func (c *Cluster) remove(ctx context.Context, name string, release func(context.Context) error, may func(m Member, voters int) error) (removed bool, err error) {
	if err := c.lock(ctx); err != nil {
		return false, err
	}
	defer c.unlock()
	members, intents, err := c.membership(ctx)
	if err != nil {
		return false, err
	}
	voters := slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.Learner })
	for _, m := range members {
		if nameOf(m, intents) != name {
			continue
		}
		if err := may(m, len(voters)); err != nil {
			return false, err
		}
		if err := c.removeMember(ctx, m.ID, name); err != nil {
			return removed, err
		}
		removed = true
	}
	if err := release(ctx); err != nil {
		return removed, err
	}
	return removed, c.deleteIntent(ctx, name)
}

func (c *Cluster) removeMember(ctx context.Context, id uint64, name string) error {
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	response, err := c.client.MemberRemove(bounded, id)
	if errors.Is(err, rpctypes.ErrMemberNotFound) {
		return nil
	} else if err != nil {
		return c.unchanged(ctx, "removing "+name, err)
	}
	c.remember(membersOf(response.Members))
	return nil
}
