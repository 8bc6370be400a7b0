package commands

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
)

func getStatus(ctx context.Context, c *caller, _ wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	if err := c.desk.signer.Stopped(); err != nil {
		return wire.Answer{}, err // what it knows may be out of date
	}
	s := wire.ClusterStatus{
		Cluster: c.desk.signer.Cluster(), Time: c.desk.now().UTC().Truncate(time.Second),
		Members: []wire.MemberStatus{}, Names: c.releasable(),
	}
	for _, g := range c.desk.signer.Authority().Generations() {
		s.Generations = append(s.Generations, wire.GenerationStatus{Role: string(g.Role), Fingerprint: g.Fingerprint(), NotAfter: g.Certificate.NotAfter, Cross: g.Cross != nil})
	}
	members, note, err := c.desk.cluster.Known(ctx)
	if err != nil {
		// What is known without etcd is an answer too.
		note = "etcd is away: its members are not known"
	}
	s.Members = append(s.Members, c.desk.memberStatuses(ctx, members)...)
	output, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Output: append(output, '\n'), Note: note}, nil
}

func (d *Desk) memberStatuses(ctx context.Context, members []peers.Member) []wire.MemberStatus {
	healthy := d.cluster.Healthy(ctx, members)
	var statuses []wire.MemberStatus
	for _, m := range members {
		statuses = append(statuses, wire.MemberStatus{Name: m.Name, ID: strconv.FormatUint(m.ID, 16), Learner: m.Learner, Healthy: healthy[m.ID]})
	}
	return statuses
}

// releasable gives the names that live, or should have been renewed, and that the
// caller may release.
func (c *caller) releasable() []wire.NameStatus {
	var names []wire.NameStatus
	now := c.desk.now()
	for _, hold := range c.desk.signer.Ledger().Expected(now) {
		if c.may(wire.Command{Verb: wire.Release, Name: hold.Name}) == nil {
			names = append(names, wire.NameStatus{Name: hold.Name, NotAfter: hold.NotAfter, Missed: hold.Missed(now)})
		}
	}
	return names
}
