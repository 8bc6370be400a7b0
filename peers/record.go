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

// LedgerHead gives the head that was saved last, and a revision for SaveLedgerHead; nil
// and 0 if none was. The error wraps ErrAway.
func (c *Cluster) LedgerHead(ctx context.Context) ([]byte, int64, error) {
	return c.record(ctx, ledgerKey, "reading the ledger's head")
}

// SaveLedgerHead puts a head in the place of the one of a revision, and gives its own. The
// error wraps ErrBusy if another one stands there by now, or if who signs is no longer what
// SetSigning or Signing gave a revision of, or it wraps ErrAway.
func (c *Cluster) SaveLedgerHead(ctx context.Context, signing, revision int64, head []byte) (int64, error) {
	return c.put(ctx, "saving the ledger's head", []clientv3.Cmp{stillAt(signingKey, signing), stillAt(ledgerKey, revision)},
		clientv3.OpPut(ledgerKey, string(head)))
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
	value, revision, err := c.record(ctx, signingKey, "reading who signs")
	if err != nil || revision == 0 {
		return nil, 0, err
	}
	var s Signing
	if json.Unmarshal(value, &s) != nil {
		s = Signing{}
	}
	return &s, revision, nil
}

// SetSigning puts a Signing in the place of the one of a revision, and gives its own. Head
// is that of its ledger, if it is to count from now on in the place of the one that was
// saved; nil: that one stays. The error wraps ErrBusy if another one stands there by now,
// or ErrAway.
func (c *Cluster) SetSigning(ctx context.Context, revision int64, next Signing, head []byte) (int64, error) {
	value, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	puts := []clientv3.Op{clientv3.OpPut(signingKey, string(value))}
	if head != nil {
		puts = append(puts, clientv3.OpPut(ledgerKey, string(head)))
	}
	return c.put(ctx, "writing who signs", []clientv3.Cmp{stillAt(signingKey, revision)}, puts...)
}

// record gives what stands at a key, and its revision; nil and 0 if nothing does.
func (c *Cluster) record(ctx context.Context, key, doing string) ([]byte, int64, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.Get(bounded, key)
	if err != nil {
		return nil, 0, c.away(ctx, doing, err)
	}
	if len(response.Kvs) == 0 {
		return nil, 0, nil
	}
	return response.Kvs[0].Value, response.Kvs[0].ModRevision, nil
}

// stillAt says that a key has what it had at a revision; 0: nothing.
func stillAt(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// put does all puts if all is so, and gives their revision.
func (c *Cluster) put(ctx context.Context, doing string, so []clientv3.Cmp, puts ...clientv3.Op) (int64, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := c.client.Txn(bounded).If(so...).Then(puts...).Commit()
	switch {
	case err != nil:
		return 0, c.away(ctx, doing, err)
	case !answer.Succeeded:
		return 0, fmt.Errorf("%w: %s: somebody else wrote it just now; ask again", ErrBusy, doing)
	}
	return answer.Header.Revision, nil
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
