package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// blocker is who is in the way of a step, and what helps.
type blocker struct{ who, why, helps string }

// blockers gives all that are in the way of a step of a rotation.
func (d *Driver) blockers(ctx context.Context, step signer.Step, r signer.Rotation) ([]blocker, error) {
	need := needs(step, r.Old, r.Next, d.now())
	if need == nil {
		return nil, nil
	}
	if need.begun != nil {
		return d.blocked(need, nil), nil
	}
	ports, err := d.look(ctx, r.Generations())
	if err != nil {
		return nil, err
	}
	return d.blocked(need, ports), nil
}

// blocked gives all that are in the way of what is needed.
func (d *Driver) blocked(need *needed, ports []port) []blocker {
	if need == nil {
		return nil
	}
	return slices.Concat(d.ofSigner(need), need.ofMembers(ports), d.ofClients(need))
}

// ofSigner gives what is in the way on this machine.
func (d *Driver) ofSigner(n *needed) []blocker {
	var all []blocker
	if n.refuses != nil && slices.ContainsFunc(d.trust, n.refuses.Certificate.Equal) {
		all = append(all, blocker{"the signer", "still hands out " + n.refuses.ID + " by trust in its configuration", "take it out there, and restart signerd"})
	}
	if n.begun != nil {
		all = append(all, blocker{"the signer", fmt.Sprintf("has a CA that is not valid before %s: %s", n.begun.From().Format(time.RFC3339), n.begun.ID),
			"if its clock was ahead when it was made: rotate abort, and prepare another one"})
	}
	since := d.signer.Authority().UnknownBefore()
	if whole := since.Add(signer.ClientLife); (n.expired != nil || n.fetched != nil) && d.now().Before(whole) {
		all = append(all, blocker{"the ledger", "has only what was signed since the CA came here, or this signer took over, at " + since.Format(time.RFC3339),
			"clients' certificates from before have expired at " + whole.Format(time.RFC3339)})
	}
	return all
}

// needed is what must be so for a step.
type needed struct {
	begun   *signer.Generation // it is not valid yet, by the signer's clock
	serves  *signer.Generation // every member serves a certificate by it
	admits  *signer.Generation // every port lets its certificates in
	refuses *signer.Generation // no port lets its certificates in
	expired *signer.Generation // no client has a certificate by it
	fetched *signer.Generation // every client has fetched a bundle with it
	absent  bool               // who cannot be seen is not in the way
}

// needs says what must be so for a step; nil: nothing, as at rest, where there is no next.
func needs(step signer.Step, old, next *signer.Generation, now time.Time) *needed {
	if next == nil {
		return nil
	}
	switch step {
	case signer.Activate:
		if now.Before(next.From()) {
			return &needed{begun: next, absent: true}
		}
		if next.Cross == nil { // what next signs is of no use to who does not trust it
			return &needed{admits: next, fetched: next}
		}
		// Whoever trusts old accepts it, unless the signer's clock is ahead: then nobody
		// could use what it signs.
		return &needed{admits: next, absent: true}
	case signer.Retire:
		// That a probe is let in says that the clocks agree, too: by a clock that is ahead
		// all that old signed has expired.
		return &needed{serves: next, admits: next, expired: old}
	case signer.Finish:
		need := &needed{refuses: old, admits: next, fetched: next}
		if now.After(old.Certificate.NotAfter) { // who trusts only it trusts nobody any more
			need.fetched = nil
		}
		return need
	case signer.Abort:
		return &needed{serves: old, admits: old, expired: next}
	}
	return nil
}

// ofMembers gives the ports that are in the way.
func (n *needed) ofMembers(ports []port) []blocker {
	const (
		syncs  = "signerd sync there sees to it; journalctl -u signerd-sync says why it has not yet"
		looked = "bring it back, or remove it"
		clocks = "its clock and the signer's differ: set the one that is wrong (timedatectl)"
		joins  = "wait until it votes; if it cannot be reached for 15 minutes it is taken out"
	)
	var all []blocker
	for _, p := range ports {
		add := func(helps, format string, args ...any) {
			all = append(all, blocker{p.member, strings.TrimSpace(p.address + " " + fmt.Sprintf(format, args...)), helps})
		}
		switch {
		case errors.Is(p.trouble, peers.ErrClock):
			add(clocks, "%v", p.trouble)
		case p.trouble != nil && n.absent:
		case errors.Is(p.trouble, errJoining):
			add(joins, "cannot be seen: %v", p.trouble)
		case p.trouble != nil:
			add(looked, "cannot be seen: %v", p.trouble)
		case n.serves != nil && p.serves != n.serves.ID:
			add(syncs, "does not serve a certificate by %s yet", n.serves.ID)
		case n.admits != nil && !p.admits[n.admits.ID]:
			add(syncs, "does not accept certificates by %s yet", n.admits.ID)
		case n.refuses != nil && p.admits[n.refuses.ID]:
			add(syncs, "still accepts certificates by %s", n.refuses.ID)
		}
	}
	return all
}

// ofClients gives the clients that are in the way, by the ledger.
func (d *Driver) ofClients(n *needed) []blocker {
	ledger, now := d.signer.Ledger(), d.now()
	var all []blocker
	if n.expired != nil {
		for _, c := range ledger.Unexpired(n.expired, now) {
			all = append(all, blocker{c.Name, fmt.Sprintf("has a certificate by %s until %s", n.expired.ID, c.Until.Format(time.RFC3339)),
				"it expires by itself; a machine that is gone: release " + c.Name})
		}
	}
	if n.fetched != nil {
		for _, c := range ledger.Unfetched(n.fetched, now) {
			all = append(all, blocker{c.Name, fmt.Sprintf("has not fetched a bundle with %s", n.fetched.ID),
				"there: get-certificate with the key that it renews with, and load it; a machine that is gone: release " + c.Name})
		}
	}
	return all
}

// named is how many blockers an error names.
const named = 5

// refusal is the error that names who is in the way.
func refusal(step signer.Step, all []blocker) error {
	// One reason of each is enough here.
	all = slices.CompactFunc(all, func(a, b blocker) bool { return a.who == b.who })
	var who []string
	for _, b := range all[:min(named, len(all))] {
		who = append(who, b.who+" "+b.why)
	}
	if rest := len(all) - named; rest > 0 {
		who = append(who, fmt.Sprintf("%d more", rest))
	}
	return fmt.Errorf("%w: rotate %s waits for %s; rotate status says what helps", ErrBlocked, step, strings.Join(who, "; "))
}
