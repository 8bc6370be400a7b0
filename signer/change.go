package signer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// Change is a step of a rotation that is to be done.
type Change struct {
	Step    Step
	Version int         // of the Rotation by which the step was judged
	Next    *Generation // of prepare: the generation that it brings
	By      Asker

	// Agree is asked before the step counts, with the CA that will sign from then on.
	// Certificates are issued meanwhile. The step has its lock: nothing that changes the
	// Authority may be called.
	Agree func(active *Generation) error
}

// Rotate does one step. It counts from the moment when state.json says so: what leads
// there is undone after an error or a crash, and what follows is done by Recover. The
// error wraps ErrRetry where the step does not lead on from here, or ErrRequest where
// the new generation cannot follow this one; any other one does not say whether the step
// counts.
//
// A certificate is recorded and signed by one set, so that after a step nothing more
// is signed by a CA that is not active any more.
func (s *Signer) Rotate(ctx context.Context, now time.Time, c Change) error {
	a := s.authority
	if !a.changing.TryLock() {
		return fmt.Errorf("%w: another step of the rotation is being done; ask again", ErrRetry)
	}
	defer a.changing.Unlock()
	if a.Rotation().Version != c.Version {
		return fmt.Errorf("%w: another step of the rotation was done just now; ask again", ErrRetry)
	}
	before := a.current()
	next := c.Next
	if next != nil {
		var err error
		if next, err = next.crossSigned(before.active(), now); err != nil {
			return err
		}
	}
	to, err := before.after(c.Step, next)
	if err != nil {
		return err
	}
	if signs := to.active(); signs.ID != before.active().ID {
		if err := signs.mayBegin(now); err != nil {
			return err
		}
	}
	record := stepRecord{Version: stateVersion, Step: c.Step, From: before.ids(), To: to.generations()}
	if err := a.begin(record, next); err != nil {
		return errors.Join(err, a.undo(record))
	}
	if err := c.Agree(to.active()); err != nil {
		return errors.Join(err, a.undo(record))
	}
	if err := s.ledger.rotate(ctx, now, c, to.active()); err != nil {
		return errors.Join(err, a.undo(record))
	}
	if err := a.count(to, c.Step); err != nil {
		// Whether it counts, Recover finds out.
		return err
	}
	return a.settle(record.From, to)
}

// mayBegin says why a generation must not sign from now on.
func (g *Generation) mayBegin(now time.Time) error {
	from := g.From()
	switch {
	case !outlives(g, now, memberLife):
		return fmt.Errorf("%w: %s expires at %s, before a member's certificate by it would", ErrRetry, g.ID, g.Certificate.NotAfter.Format(time.RFC3339))
	case now.Before(from):
		return fmt.Errorf("%w: %s is not valid before %s: if this machine's clock was ahead when it was made, rotate abort and prepare another one",
			ErrRetry, g.ID, from.Format(time.RFC3339))
	}
	return nil
}

// begin puts down what a step will change, and the files of a generation that it
// brings.
func (a *Authority) begin(record stepRecord, next *Generation) error {
	if err := writeRecord(filepath.Join(a.dir, stepFile), record); err != nil {
		return err
	}
	if next == nil {
		return nil
	}
	return writeGeneration(a.dir, next)
}

// count lets a step count, from the next certificate on.
func (a *Authority) count(to set, step Step) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	standing := a.standing
	standing.Paused = step == Rollback || step == Abort
	if err := writeRecord(filepath.Join(a.dir, stateFile), to.state(standing)); err != nil {
		return err
	}
	a.set, a.standing = to, standing
	a.changes++
	return nil
}

// settle brings the rest of the directory in line with a set that counts.
func (a *Authority) settle(before []string, to set) error {
	if err := link(a.dir, to.active()); err != nil {
		return err
	}
	for _, id := range before {
		if err := a.eraseRest(id, to); err != nil {
			return err
		}
	}
	return remove(a.dir, filepath.Join(a.dir, stepFile))
}

// eraseRest removes of a generation's files what a set does not need.
func (a *Authority) eraseRest(id string, to set) error {
	for _, g := range to {
		switch {
		case g.ID != id:
		case g.Cross != nil:
			return nil
		default:
			return remove(a.dir, crossFile(a.dir, id))
		}
	}
	return eraseGeneration(a.dir, id)
}

// undo takes back a step that does not count: what it would have brought is nobody's, and
// what was there before, by either file, stays.
func (a *Authority) undo(record stepRecord) error {
	there := slices.Concat(record.From, a.current().ids())
	for _, g := range record.To {
		if slices.Contains(there, g.ID) {
			continue
		}
		if err := eraseGeneration(a.dir, g.ID); err != nil {
			return err
		}
	}
	return remove(a.dir, filepath.Join(a.dir, stepFile))
}

// CheckStep says why Recover cannot read the record of a step that was interrupted; nil if
// it can, or there is none.
func (a *Authority) CheckStep() error {
	_, err := readStep(a.dir)
	return err
}

// Recover reads the directory anew, ends a step that was interrupted, as it counted or
// did not, and rebuilds the links. It says which step was undone; empty: none. Nobody
// else may be using the directory: the ledger's lock sees to that.
func (a *Authority) Recover(now time.Time) (undone Step, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	if err := errors.Join(durable.Sweep(filepath.Join(a.dir, stateFile)), durable.Sweep(filepath.Join(a.dir, stepFile))); err != nil {
		return "", err
	}
	if err := a.reload(now); err != nil {
		return "", fmt.Errorf("reading the CA: %w", err)
	}
	all := a.current()
	record, err := readStep(a.dir)
	switch {
	case err != nil:
		return "", err
	case record == nil:
		return "", link(a.dir, all.active())
	case !slices.Equal(record.To, all.generations()):
		return record.Step, errors.Join(a.undo(*record), link(a.dir, all.active()))
	}
	return "", a.settle(record.From, all)
}

// reload takes what the directory has, if it is another set.
func (a *Authority) reload(now time.Time) error {
	s, err := readState(a.dir)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.standing = s.standing
	if slices.Equal(s.Generations, a.set.generations()) {
		return nil
	}
	set, err := loadSet(a.dir, s, now)
	if err != nil {
		return err
	}
	a.set = set
	a.changes++
	return nil
}
