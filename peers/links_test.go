package peers

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// What a member hears is taken from its metrics; one that does not say is no reason to wait.
func TestParseLinks(t *testing.T) {
	for page, want := range map[string][]uint64{
		"": nil,
		"# TYPE etcd_network_active_peers gauge\netcd_network_active_peers{Local=\"1\",Remote=\"fd422379fda50e48\"} 1\netcd_network_active_peers{Local=\"1\",Remote=\"3\"} 0\netcd_network_peer_sent_bytes_total{To=\"3\"} 7\n": {0xfd422379fda50e48},
		"etcd_network_active_peers{Local=\"1\",Remote=\"3\"} 0\n": {},
	} {
		if got := parseLinks([]byte(page)); !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: %v", page, got)
		}
	}
}

// Members can do without another one if one of them hears a majority.
func TestCanElect(t *testing.T) {
	for _, test := range []struct {
		heard [][]uint64 // by the members 1, 2, ...
		size  int
		can   bool
	}{
		{[][]uint64{{2, 3}, {1, 3}}, 3, true},
		{[][]uint64{{3}, {3}}, 3, false},
		{[][]uint64{nil, {3}}, 3, true},
		{[][]uint64{{2}, {}}, 3, true},
		{[][]uint64{{2}, {1}, {}}, 3, true},
		{[][]uint64{{}, {}, {}}, 3, false},
		{[][]uint64{{}}, 2, true},
		{[][]uint64{}, 1, true},
		{[][]uint64{{2}, {1}, {4}, {3}}, 5, false},
		{[][]uint64{{2, 3}, {1}, {1}, {}}, 5, true},
	} {
		var members []Member
		for i := range test.heard {
			members = append(members, Member{ID: uint64(i + 1), Name: fmt.Sprint("etcd-", i+1)})
		}
		if err := canElect(members, test.heard, test.size); (err == nil) != test.can || err != nil && !errors.Is(err, ErrBusy) {
			t.Errorf("%v of %d: %v", test.heard, test.size, err)
		}
	}
}
