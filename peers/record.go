package peers

import (
	"context"
	"fmt"
)

// ledgerKey is where the ledger's head is kept: outside the signer's reach, so
// that a ledger whose end was cut off shows.
const ledgerKey = "/signerd/ledger"

// LedgerHead gives the head that was saved last; nil if none was. The error
// wraps ErrAway.
func (c *Cluster) LedgerHead(ctx context.Context) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.Get(bounded, ledgerKey)
	if err != nil {
		return nil, c.away(ctx, "reading the ledger's head", err)
	}
	if len(response.Kvs) == 0 {
		return nil, nil
	}
	return response.Kvs[0].Value, nil
}

// SaveLedgerHead keeps a head. The error wraps ErrAway.
func (c *Cluster) SaveLedgerHead(ctx context.Context, head []byte) error {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := c.client.Put(bounded, ledgerKey, string(head)); err != nil {
		return c.away(ctx, "saving the ledger's head", err)
	}
	return nil
}

// proofKey is written and deleted to see that etcd can be used.
const proofKey = "/signerd/first-boot"

// Prove writes a key, reads it back as a majority has it, and deletes it. The
// error wraps ErrAway.
func (c *Cluster) Prove(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	put, err := c.client.Put(bounded, proofKey, "")
	if err != nil {
		return c.away(ctx, "writing", err)
	}
	read, err := c.client.Get(bounded, proofKey)
	if err != nil {
		return c.away(ctx, "reading", err)
	}
	if len(read.Kvs) != 1 || read.Kvs[0].ModRevision < put.Header.Revision {
		return fmt.Errorf("%w: what was written is not what is read", ErrAway)
	}
	if _, err := c.client.Delete(bounded, proofKey); err != nil {
		return c.away(ctx, "deleting", err)
	}
	return nil
}
