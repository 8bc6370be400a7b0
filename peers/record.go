package peers

import (
	"context"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
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

// signingKey says which CA signs for the cluster, and which signer has it.
const signingKey = "/signerd/ca"

// Signing is who signs for the cluster.
type Signing struct {
	Fingerprint string `json:"fingerprint"` // of the CA: the lower-case hex SHA-256 of its DER
	Epoch       uint64 `json:"epoch"`
	Signer      string `json:"signer"`
}

// Signing gives who signs for the cluster, and a revision for SetSigning; nil and 0 if
// nobody ever said so. What is not signerd's is a Signing of nobody. The error wraps
// ErrAway.
func (c *Cluster) Signing(ctx context.Context) (*Signing, int64, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.Get(bounded, signingKey)
	if err != nil {
		return nil, 0, c.away(ctx, "reading who signs", err)
	}
	if len(response.Kvs) == 0 {
		return nil, 0, nil
	}
	var s Signing
	if json.Unmarshal(response.Kvs[0].Value, &s) != nil {
		s = Signing{}
	}
	return &s, response.Kvs[0].ModRevision, nil
}

// SetSigning puts a Signing in the place of the one of a revision. The error wraps
// ErrBusy if another one stands there by now, or ErrAway.
func (c *Cluster) SetSigning(ctx context.Context, revision int64, next Signing) error {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	answer, err := c.client.Txn(bounded).
		If(clientv3.Compare(clientv3.ModRevision(signingKey), "=", revision)).
		Then(clientv3.OpPut(signingKey, string(value))).Commit()
	switch {
	case err != nil:
		return c.away(ctx, "writing who signs", err)
	case !answer.Succeeded:
		return fmt.Errorf("%w: who signs has changed just now; ask again", ErrBusy)
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
