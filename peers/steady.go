package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxLag is how many entries of the log a member may be behind and still count
// as in step: what a busy cluster writes between two looks.
const maxLag = 1000

// Steady says why the cluster could not do without one of its members for a moment: each
// votes, and each other one answers, sees the same leader, and is in step. With an empty
// name that is asked of all. The error wraps ErrBusy with what to wait for, or ErrAway.
func (c *Cluster) Steady(ctx context.Context, without string) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		switch {
		case m.Learner || !m.Started():
			return fmt.Errorf("%w: %s is joining", ErrBusy, orUnnamed(m.Name))
		case len(m.ClientURLs) == 0:
			return fmt.Errorf("%w: %s has no client URL", ErrBusy, m.Name)
		}
	}
	members = slices.DeleteFunc(members, func(m Member) bool { return m.Name == without })
	statuses := make([]*clientv3.StatusResponse, len(members))
	problems := make([]error, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		group.Go(func() {
			var err error
			if statuses[i], err = c.status(ctx, m); err != nil {
				problems[i] = fmt.Errorf("%s: %w", m.Name, err)
			}
		})
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%w: not all members answer: %s", ErrBusy, oneLine(err))
	}
	return inStep(members, statuses)
}

// inStep says which member the others could not do without.
func inStep(members []Member, statuses []*clientv3.StatusResponse) error {
	var newest uint64
	for _, s := range statuses {
		newest = max(newest, s.RaftIndex)
	}
	for i, s := range statuses {
		switch name := members[i].Name; {
		case s.Leader == 0:
			return fmt.Errorf("%w: %s sees no leader", ErrBusy, name)
		case s.Leader != statuses[0].Leader:
			return fmt.Errorf("%w: %s and %s see different leaders", ErrBusy, members[0].Name, name)
		case s.RaftAppliedIndex+maxLag < newest:
			return fmt.Errorf("%w: %s has not caught up", ErrBusy, name)
		}
	}
	return nil
}

func (c *Cluster) status(ctx context.Context, m Member) (*clientv3.StatusResponse, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.Status(bounded, m.ClientURLs[0])
	if err != nil {
		if reason := c.probe(ctx, m.ClientURLs[0]); reason != nil {
			err = withoutPorts(reason)
		}
		return nil, err
	}
	return response, nil
}
