package peers

import (
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The cluster can do without a member only if all others are in step.
func TestInStep(t *testing.T) {
	members := []Member{{Name: "etcd-1"}, {Name: "etcd-2"}, {Name: "etcd-3"}}
	status := func(leader, index, applied uint64) *clientv3.StatusResponse {
		return &clientv3.StatusResponse{Header: &pb.ResponseHeader{}, Leader: leader, RaftIndex: index, RaftAppliedIndex: applied}
	}
	for name, test := range map[string]struct {
		statuses []*clientv3.StatusResponse
		says     string // empty: they are
	}{
		"all the same":      {[]*clientv3.StatusResponse{status(1, 5000, 5000), status(1, 5000, 5000), status(1, 5000, 5000)}, ""},
		"a little behind":   {[]*clientv3.StatusResponse{status(1, 5000, 5000), status(1, 4500, 4000), status(1, 5000, 4999)}, ""},
		"far behind":        {[]*clientv3.StatusResponse{status(1, 5000, 5000), status(1, 3999, 3999), status(1, 5000, 5000)}, "etcd-2 has not caught up"},
		"no leader":         {[]*clientv3.StatusResponse{status(1, 5, 5), status(1, 5, 5), status(0, 5, 5)}, "etcd-3 sees no leader"},
		"different leaders": {[]*clientv3.StatusResponse{status(1, 5, 5), status(2, 5, 5), status(1, 5, 5)}, "see different leaders"},
	} {
		err := inStep(members, test.statuses)
		if (err == nil) != (test.says == "") || err != nil && (!errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
