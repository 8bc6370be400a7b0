package peers

import (
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxLag is how many entries of the log a member may be behind and still count
// as in step: what a busy cluster writes between two looks.
const maxLag = 1000

// Steady says why the cluster could not do without one of its members for a
// moment: each votes, answers, sees the same leader, and is in step. The error
// wraps ErrBusy with what to wait for, or ErrAway.
func (c *Cluster) Steady(ctx context.Context) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	statuses := make([]*clientv3.StatusResponse, len(members))
	problems := make([]error, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		if m.Learner || !m.Started() {
			return fmt.Errorf("%w: %s is joining", ErrBusy, orUnnamed(m.Name))
		}
		if len(m.ClientURLs) == 0 {
			return fmt.Errorf("%w: %s has no client URL", ErrBusy, m.Name)
		}
		group.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			var err error
			if statuses[i], err = c.status(bounded, m); err != nil {
				problems[i] = fmt.Errorf("%s: %w", m.Name, err)
			}
		})
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%w: not all members answer: %v", ErrBusy, err)
	}
	var newest uint64
	for _, s := range statuses {
		newest = max(newest, s.RaftIndex)
	}
	for i, s := range statuses {
		switch {
		case s.Leader == 0:
			return fmt.Errorf("%w: %s sees no leader", ErrBusy, members[i].Name)
		case s.Leader != statuses[0].Leader:
			return fmt.Errorf("%w: %s and %s see different leaders", ErrBusy, members[0].Name, members[i].Name)
		case s.RaftAppliedIndex+maxLag < newest:
			return fmt.Errorf("%w: %s is %d entries behind", ErrBusy, members[i].Name, newest-s.RaftAppliedIndex)
		}
	}
	return nil
}

func (c *Cluster) status(ctx context.Context, m Member) (*clientv3.StatusResponse, error) {
	response, err := c.client.Status(ctx, m.ClientURLs[0])
	if err != nil {
		if reason := c.probe(ctx, m.ClientURLs[0]); reason != nil {
			err = withoutPorts(reason)
		}
		return nil, err
	}
	return response, nil
}
