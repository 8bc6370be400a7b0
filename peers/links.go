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

// link is a line of etcd's metrics: with how many streams a member, which answers it at
// its client URL whatever its metrics URLs are, hears another one (etcd,
// server/etcdserver/api/rafthttp/metrics.go).
var link = regexp.MustCompile(`(?m)^etcd_network_active_peers\{Local="[0-9a-f]+",Remote="([0-9a-f]+)"\} ([0-9]+)$`)

// hears gives the IDs of the members that one hears; nil if it does not say.
func (c *Cluster) hears(ctx context.Context, m Member) ([]uint64, error) {
	u, err := url.Parse(m.ClientURLs[0])
	if err != nil {
		return nil, err
	}
	page, err := fetch(ctx, u.Scheme, u.Host, "/metrics", c.credentials.TLS())
	if err != nil {
		return nil, withoutPorts(err)
	}
	return parseLinks(page)
}

func parseLinks(page []byte) ([]uint64, error) {
	lines := link.FindAllSubmatch(page, -1)
	if lines == nil {
		return nil, nil
	}
	heard := []uint64{}
	for _, line := range lines {
		id, err := strconv.ParseUint(string(line[1]), 16, 64)
		if err != nil {
			return nil, err
		}
		if string(line[2]) != "0" {
			heard = append(heard, id)
		}
	}
	return heard, nil
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
