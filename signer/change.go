package signer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// Change is a step of a rotation that is to be done.
type Change struct {
	Step Step
	Next *Generation // of prepare: the generation that it brings
	By   Asker

	// Agree is asked before the step counts, with the CA that will sign from then on.
	// Certificates are issued meanwhile.
	Agree func(active *Generation) error
}

// Rotate does one step. It counts from the moment when state.json says so: after an
// error before it, or a crash, nothing has changed, and after it Recover brings the
// rest in line. The error wraps ErrRetry where the step does not lead on from here.
//
// A certificate is recorded and signed by one set, so that after a step nothing more
// is signed by a CA that is not active any more.
func (s *Signer) Rotate(ctx context.Context, now time.Time, c Change) error {
	a := s.authority
	if !a.changing.TryLock() {
		return fmt.Errorf("%w: another step of the rotation is being done; ask again", ErrRetry)
	}
	defer a.changing.Unlock()
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
	record := stepRecord{Version: stateVersion, Step: c.Step, From: before.ids(), To: to.state(a.Tenure())}
	if next != nil {
		record.Made = next.ID
	}
	if err := a.begin(record, next); err != nil {
		return errors.Join(err, a.undo(record))
	}
	if err := c.Agree(to.active()); err != nil {
		return errors.Join(err, a.undo(record))
	}
	if err := s.count(ctx, now, c, to); err != nil {
		return errors.Join(err, a.undo(record))
	}
	return a.settle(record.From, to)
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
func (s *Signer) count(ctx context.Context, now time.Time, c Change, to set) error {
	if err := s.ledger.rotate(ctx, now, c, to.active()); err != nil {
		return err
	}
	a := s.authority
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := writeRecord(filepath.Join(a.dir, stateFile), to.state(a.tenure)); err != nil {
		return err
	}
	a.set = to
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

// undo takes back a step that does not count.
func (a *Authority) undo(record stepRecord) error {
	if record.Made != "" {
		if err := eraseGeneration(a.dir, record.Made); err != nil {
			return err
		}
	}
	return remove(a.dir, filepath.Join(a.dir, stepFile))
}

// Recover ends a step that a crash interrupted, as it counted or did not, and
// rebuilds the links. It says which step was undone; empty: none.
func (a *Authority) Recover() (undone Step, err error) {
	if err := errors.Join(durable.Sweep(filepath.Join(a.dir, stateFile)), durable.Sweep(filepath.Join(a.dir, stepFile))); err != nil {
		return "", err
	}
	all := a.current()
	record, err := readStep(a.dir)
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the CA: %w", err)
	case record == nil:
		return "", link(a.dir, all.active())
	case !reflect.DeepEqual(record.To, all.state(a.Tenure())):
		return record.Step, errors.Join(a.undo(*record), link(a.dir, all.active()))
	}
	return "", a.settle(record.From, all)
}
