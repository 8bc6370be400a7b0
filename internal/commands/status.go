package commands

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// status is the answer to get-status; signerd-protocol(7) promises its form.
type status struct {
	Cluster     string             `json:"cluster"`
	Generations []generationStatus `json:"generations"`
	Members     []memberStatus     `json:"members"`
	Names       []nameStatus       `json:"names,omitempty"`
}

type generationStatus struct {
	Role        signer.Role `json:"role"`
	Fingerprint string      `json:"fingerprint"`
	NotAfter    time.Time   `json:"not_after"`
}

type memberStatus struct {
	Name    string `json:"name"`
	ID      string `json:"id"` // as etcdctl member list prints it
	Learner bool   `json:"learner"`
	Healthy bool   `json:"healthy"`
}

type nameStatus struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

func getStatus(ctx context.Context, c *caller, _ wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	s := status{Cluster: c.desk.signer.Cluster(), Members: []memberStatus{}, Names: c.releasable()}
	for _, g := range c.desk.signer.Authority().Generations() {
		s.Generations = append(s.Generations, generationStatus{g.Role, g.Fingerprint(), g.Certificate.NotAfter})
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

func (d *Desk) memberStatuses(ctx context.Context, members []peers.Member) []memberStatus {
	healthy := d.cluster.Healthy(ctx, members)
	var statuses []memberStatus
	for _, m := range members {
		statuses = append(statuses, memberStatus{m.Name, strconv.FormatUint(m.ID, 16), m.Learner, healthy[m.ID]})
	}
	return statuses
}

// releasable gives the names that live and that the caller may release.
func (c *caller) releasable() []nameStatus {
	var names []nameStatus
	for _, hold := range c.desk.signer.Ledger().Live(c.desk.now()) {
		if c.may(wire.Command{Verb: wire.Release, Name: hold.Name}) == nil {
			names = append(names, nameStatus{hold.Name, hold.NotAfter})
		}
	}
	return names
}
