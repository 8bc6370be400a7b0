package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/signerd/signerd/internal/wire"
)

// maxVoters is the most that etcd's documentation recommends; more make writes
// slower and nothing safer.
const maxVoters = 7

// PeerPort is where members listen to each other.
const PeerPort = "2380"

// joinPrefix is where the intents are in etcd: which member is to join, from
// before it is added until it votes.
const joinPrefix = "/signerd/join/"

// intent is one member on its way in.
type intent struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	PeerURL string    `json:"peer_url"`
	Since   time.Time `json:"since"`
}

const intentVersion = 1

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

// Joining is a member that was registered here and does not vote yet.
type Joining struct {
	Name      string
	Since     time.Time // of its registration
	Reachable bool      // its etcd answers, if only other members
	Refused   error     // why etcd does not let it vote, but that it is not in sync yet
}

// Promote lets every learner vote that was registered here, has started, answers
// and is in sync, while all voters are healthy, and gives their names. joining are
// those that are left, with one that was registered and that etcd does not
// have. The error wraps ErrAway.
func (c *Cluster) Promote(ctx context.Context) (promoted []string, joining []Joining, err error) {
	if err := c.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer c.unlock()
	members, intents, err := c.membership(ctx)
	if err != nil || len(intents) == 0 {
		return nil, nil, err
	}
	healthy := c.Healthy(ctx, members)
	ready := takesVoter(members, healthy)
	for _, i := range intents {
		at := slices.IndexFunc(members, func(m Member) bool { return nameOf(m, intents) == i.Name && slices.Contains(m.PeerURLs, i.PeerURL) })
		votes := at >= 0 && !members[at].Learner // an earlier pass promoted it
		replaced := at < 0 && slices.ContainsFunc(members, func(m Member) bool { return m.Name == i.Name })
		if votes || replaced {
			if err := c.deleteIntent(ctx, i.Name); err != nil {
				return promoted, joining, err
			}
			continue
		}
		if at < 0 {
			joining = append(joining, Joining{Name: i.Name, Since: i.Since})
			continue
		}
		m := members[at]
		// etcd calls a learner in sync that was so before it died. The vote of one
		// that is away could cost the cluster its quorum.
		reachable := healthy[m.ID] || c.answers(ctx, m)
		j := Joining{Name: i.Name, Since: i.Since, Reachable: reachable}
		if m.Started() && ready && reachable {
			switch err := c.promote(ctx, m.ID); {
			case err == nil:
				promoted = append(promoted, i.Name) // the next pass sees it vote
			case !errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
				j.Refused = err
			}
		}
		joining = append(joining, j)
	}
	return promoted, joining, nil
}

// takesVoter says whether a learner may become a voter: all voters are healthy,
// and there are not too many.
func takesVoter(members []Member, healthy map[uint64]bool) bool {
	voters := 0
	for _, m := range members {
		if !m.Learner {
			voters++
		}
		if !m.Learner && !healthy[m.ID] {
			return false
		}
	}
	return voters < maxVoters
}

// promote lets a learner vote. That it is not in sync yet is the usual reason why etcd
// does not.
func (c *Cluster) promote(ctx context.Context, id uint64) error {
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	_, err := c.client.MemberPromote(bounded, id)
	return err
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

// nameOf gives a member's name, from its intent until it has started.
func nameOf(m Member, intents []intent) string {
	if m.Started() {
		return m.Name
	}
	for _, i := range intents {
		if slices.Contains(m.PeerURLs, i.PeerURL) {
			return i.Name
		}
	}
	return ""
}

func orUnnamed(name string) string {
	if name == "" {
		return "one that has not started"
	}
	return name
}

func (c *Cluster) intents(ctx context.Context) ([]intent, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.Get(bounded, joinPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, c.away(ctx, "reading who is joining", err)
	}
	var intents []intent
	for _, kv := range response.Kvs {
		var i intent
		if json.Unmarshal(kv.Value, &i) != nil || i.Version != intentVersion {
			return nil, fmt.Errorf("%w: etcd's key %s is not an intent of version %d; delete it if no member is joining", ErrAway, kv.Key, intentVersion)
		}
		intents = append(intents, i)
	}
	// Where two intents name one URL the later one counts.
	slices.SortFunc(intents, func(a, b intent) int { return b.Since.Compare(a.Since) })
	return intents, nil
}

func (c *Cluster) putIntent(ctx context.Context, i intent) error {
	value, err := json.Marshal(i)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if _, err := c.client.Put(bounded, joinPrefix+i.Name, string(value)); err != nil {
		return c.away(ctx, "recording that "+i.Name+" joins", err)
	}
	return nil
}

func (c *Cluster) deleteIntent(ctx context.Context, name string) error {
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if _, err := c.client.Delete(bounded, joinPrefix+name); err != nil {
		return c.away(ctx, "forgetting that "+name+" joins", err)
	}
	return nil
}
