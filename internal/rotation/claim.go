package rotation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/member"
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

// Forbids says whether an error of Claim means that nothing must be signed here.
func Forbids(err error) bool { return errors.Is(err, ErrSuperseded) || errors.Is(err, ErrForeign) }

// Claim makes sure that this signer signs for the cluster, and that etcd says so. The
// error wraps ErrSuperseded or ErrForeign, or peers.ErrAway or peers.ErrBusy, which say
// nothing.
func Claim(ctx context.Context, authority *signer.Authority, cluster *peers.Cluster) error {
	return claim(ctx, authority, cluster, authority.Active())
}

// Adopt makes this signer the one that signs for the cluster, whatever etcd says. It
// begins a new tenure, so that a signer that signed before learns it.
func Adopt(ctx context.Context, authority *signer.Authority, cluster *peers.Cluster) error {
	there, err := cluster.Signing(ctx)
	if err != nil {
		return err
	}
	var epoch uint64
	if there != nil {
		epoch = there.Epoch
	}
	if err := authority.TakeOver(epoch); err != nil {
		return err
	}
	return cluster.SetSigning(ctx, there, signing(authority, authority.Active()))
}

// signing is what etcd is to say where a generation of ours signs.
func signing(authority *signer.Authority, active *signer.Generation) peers.Signing {
	tenure := authority.Tenure()
	return peers.Signing{Fingerprint: active.Fingerprint(), Epoch: tenure.Epoch, Signer: tenure.Signer}
}

// claim says in etcd that active signs from now on.
func claim(ctx context.Context, authority *signer.Authority, cluster *peers.Cluster, active *signer.Generation) error {
	there, err := cluster.Signing(ctx)
	if err != nil {
		return errors.Join(strange(ctx, authority, cluster), err)
	}
	ours := signing(authority, active)
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

// lookTimeout bounds the look at an etcd that cannot be asked.
const lookTimeout = time.Second

// strange says why an etcd that cannot be asked is another CA's: all of its ports that
// can be seen trust none of ours, so that nobody could use what is signed here.
func strange(ctx context.Context, authority *signer.Authority, cluster *peers.Cluster) error {
	var ours []*x509.Certificate
	for _, g := range authority.Generations() {
		ours = append(ours, g.Certificate)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	var others []string
	for _, endpoint := range cluster.Endpoints() {
		u, err := url.Parse(endpoint)
		if err != nil {
			return err
		}
		served, err := member.Inspect(ctx, u.Host, nil)
		if err != nil {
			continue
		}
		trusted, missing := served.Difference(ours)
		if len(missing) < len(ours) {
			return nil
		}
		others = trusted
	}
	if others == nil {
		return nil
	}
	return fmt.Errorf("%w: etcd trusts %s, and this signer has %s: was a CA made anew here? Bring that CA back, from a backup (signerd ca restore) or its key (signerd ca import)",
		ErrForeign, strings.Join(others, ", "), authority.Active().Certificate.Subject)
}

// judge says why this signer must not sign, given who does by etcd.
func judge(there peers.Signing, authority *signer.Authority, active *signer.Generation) error {
	tenure := authority.Tenure()
	if there.Epoch > tenure.Epoch || there.Epoch == tenure.Epoch && there.Signer != tenure.Signer {
		return fmt.Errorf("%w: etcd has the signer %s in epoch %d, and this one is %s in epoch %d: disable signerd here and ask the other one; if this one is to sign: signerd ca adopt",
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
	return fmt.Errorf("%w: etcd has %s, and this signer has %s: if etcd was restored from a backup and this CA is right: signerd ca adopt",
		ErrForeign, there.Fingerprint, authority.Active().Fingerprint())
}
