package peers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// turnKey is held by the member that restarts its etcd, so that no other does.
const turnKey = "/signerd/restart"

// Turn is the right to restart one member, which at most one holds.
type Turn struct {
	cluster *Cluster
	lease   clientv3.LeaseID
	held    time.Time // when it was surely held last
}

// turnHolder is what stands in etcd.
type turnHolder struct {
	Member string    `json:"member"`
	Since  time.Time `json:"since"`
}

// TakeTurn takes the turn for a member. It keeps no stream open to any member,
// which would make that one's stop take 8 s. The error wraps ErrAway, or ErrBusy
// with the name of who has it.
func (c *Cluster) TakeTurn(ctx context.Context, now time.Time, member string) (*Turn, error) {
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	// Who waits for another one's turn writes nothing.
	present, err := c.client.Get(bounded, turnKey)
	if err != nil {
		return nil, c.awayForTurn(ctx, "looking who has the turn to restart", err)
	}
	if len(present.Kvs) > 0 {
		return nil, heldBy(present.Kvs)
	}
	asked := time.Now()
	lease, err := c.client.Grant(bounded, int64(turnLife/time.Second))
	if err != nil {
		return nil, c.awayForTurn(ctx, "asking for a lease", err)
	}
	t := &Turn{cluster: c, lease: lease.ID, held: asked}
	value, err := json.Marshal(turnHolder{member, now.UTC().Truncate(time.Second)})
	if err != nil {
		return nil, errors.Join(err, t.Release(ctx))
	}
	answer, err := c.client.Txn(bounded).
		If(clientv3.Compare(clientv3.CreateRevision(turnKey), "=", 0)).
		Then(clientv3.OpPut(turnKey, string(value), clientv3.WithLease(lease.ID))).
		Else(clientv3.OpGet(turnKey)).Commit()
	if err != nil {
		return nil, errors.Join(c.awayForTurn(ctx, "taking the turn to restart", err), t.Release(ctx))
	}
	if answer.Succeeded {
		return t, nil
	}
	return nil, errors.Join(heldBy(answer.Responses[0].GetResponseRange().Kvs), t.Release(ctx))
}

// heldBy says who has the turn.
func heldBy(kvs []*mvccpb.KeyValue) error {
	var holder turnHolder
	for _, kv := range kvs {
		_ = json.Unmarshal(kv.Value, &holder) // without a name it is held all the same
	}
	return fmt.Errorf("%w: %s has the turn to restart since %s", ErrBusy, cmp.Or(holder.Member, "somebody who left no name"), holder.Since.Format(time.RFC3339))
}

// awayForTurn is away for a member, which needs no more of etcd than one key.
func (c *Cluster) awayForTurn(ctx context.Context, doing string, err error) error {
	if errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty) {
		return fmt.Errorf("%w: %s: %v: with authentication on, each member must be a user of etcd that may use the key %s; signerd(8) has the commands",
			ErrAway, doing, err, turnKey)
	}
	return c.away(ctx, doing, err)
}

// Hold makes sure that the turn is still held, and goes on to be for turnLife.
// The error wraps ErrBusy if it is lost, so that nothing may be restarted any
// more, or ErrAway.
func (t *Turn) Hold(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := time.Now()
	answer, err := t.cluster.client.KeepAliveOnce(bounded, t.lease)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound), err == nil && answer.TTL <= 0:
		return fmt.Errorf("%w: the turn to restart ran out: this machine stood still for too long", ErrBusy)
	case err != nil:
		return t.cluster.away(ctx, "holding the turn to restart", err)
	}
	t.held = asked
	return nil
}

// Fresh says whether the turn was held a moment ago, by this machine's clock: a
// process that stood still since its last Hold must not go on as if it had not.
func (t *Turn) Fresh() bool {
	// The monotonic clock stands still with the machine, the wall clock does not.
	return time.Since(t.held) < turnLife/2 && time.Now().Round(0).Sub(t.held.Round(0)).Abs() < turnLife/2
}

// Release gives the turn back. One that cannot runs out.
func (t *Turn) Release(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	if _, err := t.cluster.client.Revoke(bounded, t.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return t.cluster.away(ctx, "giving the turn to restart back", err)
	}
	return nil
}
