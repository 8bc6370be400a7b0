package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/signerd/signerd/internal/wire"
)

// maxVoters is the most that etcd's documentation recommends; more make writes
// slower and nothing safer.
const maxVoters = 7

// PeerPort is where members listen to each other.
const PeerPort = "2380"

// PeerURL gives the URL at which the other members dial a member.
func PeerURL(address wire.Address) string {
	return "https://" + net.JoinHostPort(address.String(), PeerPort)
}

// Joiner is a member that asks for its place in the cluster.
type Joiner struct {
	Name      string
	Addresses []wire.Address // the first one is what the other members dial
	Source    netip.Addr     // where it asks from
	Proven    bool           // it is whom the cluster knows by that name, so it may move
}

// Register lets etcd know a member. A new one is added as a learner, which
// cannot cost the cluster its quorum, after its intent was written down. A
// voter with another first address moves there, if it is proven to be that
// member and asks from one of its addresses. What is so already is left alone.
// The error wraps ErrAway, ErrBusy or ErrTaken.
func (c *Cluster) Register(ctx context.Context, now time.Time, j Joiner) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	members, intents, err := c.membership(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if nameOf(m, intents) == j.Name {
			continue
		}
		for _, address := range j.Addresses {
			if m.uses(address) {
				return fmt.Errorf("%w: %s is the address of another member, %s", ErrTaken, address, orUnnamed(nameOf(m, intents)))
			}
		}
	}
	for _, m := range members {
		if nameOf(m, intents) == j.Name {
			return c.move(ctx, m, j)
		}
	}
	return c.add(ctx, intent{intentVersion, j.Name, PeerURL(j.Addresses[0]), now.UTC()}, members, intents)
}

// membership gives the members and who is joining.
func (c *Cluster) membership(ctx context.Context) ([]Member, []intent, error) {
	members, err := c.Members(ctx)
	if err != nil {
		return nil, nil, err
	}
	intents, err := c.intents(ctx)
	return members, intents, err
}

// add registers a new learner. The intent is forgotten when etcd surely has no
// such member; otherwise it may have taken this try or one before.
func (c *Cluster) add(ctx context.Context, wanted intent, members []Member, intents []intent) error {
	for _, m := range members {
		if m.Learner {
			return fmt.Errorf("%w: %s is joining, and members join one at a time; try again when it votes", ErrBusy, orUnnamed(nameOf(m, intents)))
		}
	}
	if len(members) >= maxVoters {
		return fmt.Errorf("%w: the cluster has %d members, and more than %d only make it slower; remove one first", ErrBusy, len(members), maxVoters)
	}
	if err := c.putIntent(ctx, wanted); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	response, err := c.client.MemberAddAsLearner(bounded, []string{wanted.PeerURL})
	if errors.Is(err, rpctypes.ErrUnhealthy) || errors.Is(err, rpctypes.ErrMemberNotEnoughStarted) || errors.Is(err, rpctypes.ErrTooManyLearners) {
		_ = c.deleteIntent(ctx, wanted.Name) // one that stays counts less than a later one
	}
	if err != nil {
		return c.unchanged(ctx, "adding "+wanted.Name, err)
	}
	c.remember(membersOf(response.Members))
	select {
	case c.registered <- struct{}{}:
	default: // somebody is told already
	}
	return nil
}

// Registered tells, once for one or more, that a member was registered and now
// waits to be promoted.
func (c *Cluster) Registered() <-chan struct{} { return c.registered }

// move gives a member that asks with another first address its new peer URL. A
// member whose URL has that address, at whatever port, stays as it is.
func (c *Cluster) move(ctx context.Context, m Member, j Joiner) error {
	switch {
	case anyAt(m.PeerURLs, j.Addresses[0]):
		return nil
	case m.Learner:
		// Before etcd 3.5.31, 3.6.12 and 3.7.0 an update made a learner a voter.
		return fmt.Errorf("%w: %s is still joining with the address %s; remove it before it joins with another",
			ErrTaken, j.Name, strings.Join(m.PeerURLs, ","))
	case !j.Proven:
		return fmt.Errorf("%w: %s is a member at %s; it moves with its own certificate key, or with an SSH key that is bound to its name; a new machine needs another name, or remove %s first",
			ErrTaken, j.Name, strings.Join(m.PeerURLs, ","), j.Name)
	case !slices.Contains(j.Addresses, wire.AddressFrom(j.Source)):
		return fmt.Errorf("%w: a member moves to another address only from there; this request came from %s", ErrTaken, j.Source)
	}
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	response, err := c.client.MemberUpdate(bounded, m.ID, []string{PeerURL(j.Addresses[0])})
	if err != nil {
		return c.unchanged(ctx, "moving "+j.Name, err)
	}
	c.remember(membersOf(response.Members))
	return nil
}

// unchanged explains why etcd did not change its membership.
func (c *Cluster) unchanged(ctx context.Context, doing string, err error) error {
	for reason, text := range map[error]string{
		rpctypes.ErrUnhealthy:              "a member is unhealthy or was restarted in the last seconds",
		rpctypes.ErrMemberNotEnoughStarted: "too few members are running",
		rpctypes.ErrTooManyLearners:        "another member is joining",
		rpctypes.ErrMemberNotFound:         "a member with this address was removed just now",
		rpctypes.ErrMemberExist:            "etcd is still adding it",
		rpctypes.ErrPeerURLExist:           "another member has this peer address",
	} {
		if errors.Is(err, reason) {
			return fmt.Errorf("%w: %s: %s; try again", ErrBusy, doing, text)
		}
	}
	return c.away(ctx, doing, err)
}
