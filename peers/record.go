package peers

import "context"

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
