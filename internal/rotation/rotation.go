// Package rotation replaces the CA's key while etcd serves. It asks for evidence before
// each step: the ledger says what clients have, and probes say what each member really
// serves and accepts. It never waits for a time to pass.
package rotation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// ErrBlocked is wrapped when the evidence does not allow a step yet. Its text names
// who is in the way, and may be shown to the client.
var ErrBlocked = errors.New("not now")

// Driver does the steps of a rotation. Its methods may be called from any goroutine.
type Driver struct {
	signer  *signer.Signer
	cluster *peers.Cluster
	trust   []*x509.Certificate // CAs of the configuration, which are handed out too
	now     func() time.Time
	probes  *probes

	claiming sync.Mutex   // held while etcd is told who signs
	claimed  atomic.Int64 // etcd's revision of this signer's being the one that signs, as seen last
}

// New makes a Driver. trust are further CAs that are handed out.
func New(s *signer.Signer, cluster *peers.Cluster, trust []*x509.Certificate) *Driver {
	return &Driver{signer: s, cluster: cluster, trust: trust, now: time.Now, probes: newProbes(s)}
}

// Do does one step, if its gate lets it, and says what is so now and what comes next.
// supplied is the CA that prepare is to bring, nil for a new one. A step that the
// rotation is beyond is done already. The error wraps ErrBlocked, signer.ErrRetry,
// peers.ErrAway or peers.ErrBusy, and then nothing has changed.
func (d *Driver) Do(ctx context.Context, step signer.Step, supplied *signer.Generation, by signer.Asker) (string, error) {
	if err := d.signer.Stopped(); err != nil {
		return "", err
	}
	authority := d.signer.Authority()
	if authority.Untold() {
		return "", fmt.Errorf("%w: etcd has not been told yet that this signer signs; ask again", ErrBlocked)
	}
	// What a step before this one could not bring to its end comes first.
	if _, err := authority.Recover(d.now()); err != nil {
		return "", err
	}
	r := authority.Rotation()
	if supplied != nil && r.Next != nil && r.Next.Fingerprint() != supplied.Fingerprint() {
		return "", fmt.Errorf("%w: a rotation to another CA goes on, %s: finish it, or rotate abort", ErrBlocked, r.Next.ID)
	}
	if r.Phase.Done(step) {
		return "nothing was to be done: " + describe(r, d.now()), nil
	}
	if err := r.Phase.Check(step); err != nil {
		return "", err
	}
	blockers, err := d.blockers(ctx, step, r)
	if err != nil {
		return "", err
	}
	if len(blockers) > 0 {
		return "", refusal(step, blockers)
	}
	if step == signer.Prepare && supplied == nil {
		if supplied, err = d.signer.Successor(d.now()); err != nil {
			return "", err
		}
	}
	err = d.rotate(ctx, signer.Change{
		Step: step, Version: r.Version, Next: supplied, By: by,
		Agree: func(active *signer.Generation) error { return d.announce(ctx, active) },
	})
	if err != nil {
		return "", err
	}
	if step == signer.Finish {
		return describe(authority.Rotation(), d.now()) + "\n" + reminder, nil
	}
	return describe(authority.Rotation(), d.now()), nil
}

// rotate does a step while nobody else tells etcd who signs.
func (d *Driver) rotate(ctx context.Context, c signer.Change) error {
	d.claiming.Lock()
	defer d.claiming.Unlock() // a step that panics ends only its command
	return d.signer.Rotate(ctx, d.now(), c)
}

// reminder is of what the evidence cannot show.
const reminder = "A client that has fetched the new CA and not loaded it (kube-apiserver reads its CA file when it starts) works on until its connections are made anew: restart those that were not."

// Auto does every step whose gate lets it, one after the other. At rest it begins only
// where the CA is to be replaced: when a tenth of its life is left. After a step back it
// waits until a person has gone on. It says what is so at the end; the error is that of
// the step that is blocked.
func (d *Driver) Auto(ctx context.Context, by signer.Asker) (string, error) {
	authority := d.signer.Authority()
	for begun := false; ; begun = true {
		r := authority.Rotation()
		if r.Phase == signer.Resting && (begun || !ageing(r.Old.Certificate, d.now())) {
			return describe(r, d.now()), nil
		}
		if r.Paused {
			return "", fmt.Errorf("%w: the last step led back: rotate %s lets it go on", ErrBlocked, r.Phase.Next())
		}
		if _, err := d.Do(ctx, r.Phase.Next(), nil, by); err != nil {
			return "", err
		}
	}
}

// ageing says whether a tenth of a CA's life or less is left.
func ageing(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/10
}

// ends says whether a CA expires before a member's certificate from now would, so that
// etcd must load the next one.
func ends(g *signer.Generation, now time.Time) bool {
	return g.Certificate.NotAfter.Before(now.Add(signer.MemberLife))
}

// describe says where a rotation stands, what happens by itself, and what comes next.
func describe(r signer.Rotation, now time.Time) string {
	old, next := r.Old, r.Next
	var text string
	switch r.Phase {
	case signer.Prepared:
		text = fmt.Sprintf("prepared: the trust bundle has %s too; members and clients take it as they renew.", next.ID)
		switch {
		case next.Cross == nil:
			text += fmt.Sprintf("\n%s may sign no other CA, so that each member is restarted now, one at a time, and each client must have loaded the bundle.", old.ID)
		case ends(old, now):
			text += fmt.Sprintf("\n%s is about to expire, so that each member is restarted now, one at a time.", old.ID)
		default:
			text += "\nNobody is restarted."
		}
	case signer.Activated:
		text = fmt.Sprintf("activated: %s signs; members are given new certificates by their next sync", next.ID)
		if next.Cross != nil && ends(old, now) {
			text += fmt.Sprintf(", and who has not loaded %s yet is restarted, since %s is about to expire.", next.ID, old.ID)
		} else {
			text += ", and nobody is restarted."
		}
		text += "\nThe way back is rotate rollback."
	case signer.Retired:
		text = fmt.Sprintf("retired: the trust bundle has only %s; signerd sync restarts each member once, one at a time.\n%s", next.ID, reminder)
	default:
		return fmt.Sprintf("at rest: the CA is %s, %s.", old.ID, old.Fingerprint())
	}
	return text + "\nNext: rotate " + string(r.Phase.Next()) + "; rotate status says whom it waits for."
}
