package peers

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/signerd/signerd/internal/wire"
)

// Member is one entry of etcd's member list.
type Member struct {
	ID         uint64
	Name       string // empty until it has started for the first time
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Started says whether the member has ever run.
func (m Member) Started() bool { return m.Name != "" }

// uses says whether the member is reached at an address.
func (m Member) uses(address wire.Address) bool {
	return anyAt(m.PeerURLs, address) || anyAt(m.ClientURLs, address)
}

// anyAt says whether one of some URLs has an address as its host.
func anyAt(urls []string, address wire.Address) bool {
	return slices.ContainsFunc(urls, func(text string) bool {
		u, err := url.Parse(text)
		if err != nil {
			return false
		}
		host, err := wire.ParseAddress(u.Hostname())
		return err == nil && host == address
	})
}

// Members gives the list of members that a majority agrees on. The error wraps
// ErrAway.
func (c *Cluster) Members(ctx context.Context) ([]Member, error) {
	members, err := c.list(ctx)
	if err != nil {
		return nil, c.away(ctx, "listing the members", err)
	}
	return members, nil
}

// Known gives the best list of members that can be had: the majority's, or
// what one member knows by itself, or what was heard last. The note, if it is
// not empty, says why it is not the majority's. The error wraps ErrAway.
func (c *Cluster) Known(ctx context.Context) (members []Member, note string, err error) {
	if members, err = c.list(ctx); err == nil {
		return members, "", nil
	}
	if members, err = c.list(ctx, clientv3.WithSerializable()); err == nil {
		return members, "etcd has no quorum: this is the list of one member alone", nil
	}
	if members = c.remembered(); members != nil {
		return members, "etcd is away: this is the last list it gave", nil
	}
	return nil, "", c.away(ctx, "listing the members", err)
}

func (c *Cluster) list(ctx context.Context, options ...clientv3.OpOption) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.MemberList(ctx, options...)
	if err != nil {
		return nil, err
	}
	members := membersOf(response.Members)
	c.remember(members)
	return members, nil
}

func membersOf(list []*pb.Member) []Member {
	members := make([]Member, 0, len(list))
	for _, m := range list {
		members = append(members, Member{m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner})
	}
	slices.SortFunc(members, func(a, b Member) int {
		if byName := strings.Compare(a.Name, b.Name); byName != 0 {
			return byName
		}
		return slices.Compare(a.PeerURLs, b.PeerURLs)
	})
	return members
}

// ClientURLs gives the client URL of each voter that has started.
func ClientURLs(members []Member) []string {
	var urls []string
	for _, m := range members {
		if m.Started() && !m.Learner && len(m.ClientURLs) > 0 {
			urls = append(urls, m.ClientURLs[0])
		}
	}
	return urls
}

// Topology gives the members in the form of etcd's --initial-cluster:
// name=peerURL, separated by commas. A member that has not started yet has its
// name from its intent to join. The error wraps ErrAway, or ErrBusy for a
// member whose name nobody knows.
func (c *Cluster) Topology(ctx context.Context) (string, error) {
	members, err := c.Members(ctx)
	if err != nil {
		return "", err
	}
	intents, err := c.intents(ctx)
	if err != nil {
		return "", err
	}
	var pairs []string
	for _, m := range members {
		name := nameOf(m, intents)
		if name == "" {
			return "", fmt.Errorf("%w: the member at %s was added by somebody else and has not started: start it or remove it", ErrBusy, strings.Join(m.PeerURLs, ","))
		}
		for _, u := range m.PeerURLs {
			pairs = append(pairs, name+"="+u)
		}
	}
	return strings.Join(pairs, ","), nil
}

// Healthy says of each member, by ID, whether it answers and sees a leader.
func (c *Cluster) Healthy(ctx context.Context, members []Member) map[uint64]bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	healthy := make([]bool, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		if len(m.ClientURLs) == 0 {
			continue
		}
		group.Go(func() {
			response, err := c.client.Status(ctx, m.ClientURLs[0])
			healthy[i] = err == nil && response.Leader != 0
		})
	}
	group.Wait()
	byID := map[uint64]bool{}
	for i, m := range members {
		byID[m.ID] = healthy[i]
	}
	return byID
}
