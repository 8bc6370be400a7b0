package peers

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

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
