package peers

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// link is a line of etcd's metrics: whether a member exchanges messages with another one,
// 1 or 0 (etcd, server/etcdserver/api/rafthttp/metrics.go).
var link = regexp.MustCompile(`(?m)^etcd_network_active_peers\{Local="[0-9a-f]+",Remote="([0-9a-f]+)"\} ([0-9]+)$`)

// hears gives the IDs of the members that one hears, as it says at its client URL; nil if
// it does not say, as one whose HTTP is elsewhere (--listen-client-http-urls).
func (c *Cluster) hears(ctx context.Context, m Member) []uint64 {
	u, err := url.Parse(m.ClientURLs[0])
	if err != nil {
		return nil
	}
	page, err := fetch(ctx, u.Scheme, u.Host, "/metrics", c.credentials.TLS())
	if err != nil {
		return nil
	}
	return parseLinks(page)
}

func parseLinks(page []byte) (heard []uint64) {
	for _, line := range link.FindAllSubmatch(page, -1) {
		if heard == nil {
			heard = []uint64{} // it says something
		}
		if id, err := strconv.ParseUint(string(line[1]), 16, 64); err == nil && string(line[2]) != "0" {
			heard = append(heard, id)
		}
	}
	return heard
}

// canElect says why some members of a cluster of a size, of which each hears others,
// would have no leader among them.
func canElect(members []Member, heard [][]uint64, size int) error {
	quorum := size/2 + 1
	if len(members) < quorum {
		return nil // whoever restarts one of two knows
	}
	var names []string
	for i, m := range members {
		votes := 0
		for _, other := range members {
			if other.ID == m.ID || heard[i] == nil || slices.Contains(heard[i], other.ID) {
				votes++
			}
		}
		if votes >= quorum {
			return nil
		}
		names = append(names, m.Name)
	}
	return fmt.Errorf("%w: %s do not hear each other, and would have no leader", ErrBusy, strings.Join(names, ", "))
}
