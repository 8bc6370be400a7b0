package rotation

import (
	"context"
	"errors"
	"fmt"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// The reasons not to sign for a cluster. Their texts may be shown to the client.
var (
	// ErrSuperseded is wrapped when another signer with the same CA took over.
	ErrSuperseded = errors.New("another signer took over")
	// ErrForeign is wrapped when the cluster has another CA.
	ErrForeign = errors.New("the cluster has another CA")
)

// Claim makes sure that this signer signs for the cluster, and that etcd says so. The
// error wraps ErrSuperseded or ErrForeign, or peers.ErrAway or peers.ErrBusy, which say
// nothing.
func Claim(ctx context.Context, authority *signer.Authority, cluster *peers.Cluster) error {
	return claim(ctx, authority, cluster, authority.Active())
}

// claim says in etcd that active signs from now on.
func claim(ctx context.Context, authority *signer.Authority, cluster *peers.Cluster, active *signer.Generation) error {
	there, err := cluster.Signing(ctx)
	if err != nil {
		return err
	}
	tenure := authority.Tenure()
	ours := peers.Signing{Fingerprint: active.Fingerprint(), Epoch: tenure.Epoch, Signer: tenure.Signer}
	if there != nil {
		if *there == ours {
			return nil
		}
		if err := judge(*there, authority, active); err != nil {
			return err
		}
	}
	return cluster.SetSigning(ctx, there, ours)
}

// judge says why this signer must not sign, given who does by etcd.
func judge(there peers.Signing, authority *signer.Authority, active *signer.Generation) error {
	tenure := authority.Tenure()
	if there.Epoch > tenure.Epoch || there.Epoch == tenure.Epoch && there.Signer != tenure.Signer {
		return fmt.Errorf("%w: etcd has the signer %s in epoch %d, and this one is %s in epoch %d: stop and disable signerd here, and ask the other one",
			ErrSuperseded, there.Signer, there.Epoch, tenure.Signer, tenure.Epoch)
	}
	if there.Fingerprint == active.Fingerprint() {
		return nil
	}
	for _, g := range authority.Generations() {
		if g.Fingerprint() == there.Fingerprint {
			return nil
		}
	}
	return fmt.Errorf("%w: etcd has %s, and this signer has %s: is this the directory of another cluster, or was etcd restored from a backup?",
		ErrForeign, there.Fingerprint, authority.Active().Fingerprint())
}
