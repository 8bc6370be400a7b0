package commands

import (
	"context"
	"strings"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

func help(context.Context, *caller, wire.Command, sshfront.Stdin) (wire.Answer, error) {
	return wire.Answer{Output: []byte(wire.UsageText)}, nil
}

func getCertificate(_ context.Context, c *caller, _ wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	if err := c.desk.signer.Stopped(); err != nil {
		return wire.Answer{}, err // what it knows may be out of date
	}
	next := c.desk.signer.Authority().Rotation().Next
	bundle := c.desk.bundle()
	if next != nil {
		fetch := signer.Fetch{By: c.asker()}
		if c.grant == nil { // the way in was the key of a certificate
			fetch.Key = c.held[0].Key
		}
		c.desk.signer.Ledger().NoteFetch(c.desk.now(), fetch, next)
	}
	return wire.Answer{Output: bundle}, nil
}

func getPeers(ctx context.Context, c *caller, _ wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	members, note, err := c.desk.cluster.Known(ctx)
	if err != nil {
		return wire.Answer{}, err
	}
	var lines strings.Builder
	for _, url := range peers.ClientURLs(members) {
		lines.WriteString(url + "\n")
	}
	return wire.Answer{Output: []byte(lines.String()), Note: note}, nil
}

func getTopology(ctx context.Context, c *caller, _ wire.Command, _ sshfront.Stdin) (wire.Answer, error) {
	topology, err := c.desk.cluster.Topology(ctx)
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Output: []byte(topology + "\n")}, nil
}
