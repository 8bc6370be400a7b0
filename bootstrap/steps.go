package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// Event is one thing that an Observer is told.
type Event struct {
	Number, Of int    // which step of how many; 0: no step
	Title      string // what the step does, in a few words
	State      State
	Detail     string        // what it found or is waiting for
	Took       time.Duration // of a step that ended
	Err        error         // of a step that failed
}

// State is where a step is.
type State string

// The states of a step, and the two kinds of remark.
const (
	Begun   State = "begun"
	Waiting State = "waiting" // Detail says for what
	Done    State = "done"
	Before  State = "before" // it was done by an earlier run
	Failed  State = "failed"
	Planned State = "planned" // of a dry run
	Warning State = "warning"
)

// Observer is told what happens as it happens.
type Observer func(Event)

// step is one thing to do. It may be done again after any crash: it looks at
// what is there, and leaves what is right.
type step struct {
	id    string // in the journal
	title string
	do    func(context.Context) (detail string, err error)
}

// boot is one run of Init or Join.
type boot struct {
	plan    plan
	journal *journal
	found   found
	observe Observer
	now     func() time.Time
	at      Event // the step that is under way
}

// say tells what the step is waiting for.
func (b *boot) say(format string, args ...any) {
	e := b.at
	e.State, e.Detail = Waiting, fmt.Sprintf(format, args...)
	b.observe(e)
}

// run does the steps in turn, but for those that an earlier run has done.
func (b *boot) run(ctx context.Context, steps []step) error {
	for i, s := range steps {
		b.at = Event{Number: i + 1, Of: len(steps), Title: s.title}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.title, context.Cause(ctx))
		}
		e := b.at
		if b.journal.done(s.id) {
			e.State = Before
			b.observe(e)
			continue
		}
		e.State = Begun
		b.observe(e)
		began := time.Now()
		var err error
		if e.Detail, err = s.do(ctx); err == nil {
			err = b.journal.mark(s.id)
		}
		e.Took = time.Since(began)
		if err != nil {
			e.State, e.Err = Failed, err
			b.observe(e)
			return fmt.Errorf("%s: %w", s.title, err)
		}
		e.State = Done
		b.observe(e)
	}
	return nil
}

// pretend tells which steps there would be.
func (b *boot) pretend(steps []step) {
	for i, s := range steps {
		b.observe(Event{Number: i + 1, Of: len(steps), Title: s.title, State: Planned})
	}
}

// lock keeps a second first-boot out, until release.
func lock() (release func() error, err error) {
	release, err = durable.Lock(lockPath)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%w: %v", ErrBusy, err)
	}
	return release, err
}

// eventually calls try until it says that it is done, its error is final, or
// the context ends; then the last error is given.
func (b *boot) eventually(ctx context.Context, every time.Duration, try func(context.Context) (done bool, err error)) error {
	said := ""
	for {
		done, err := try(ctx)
		if done {
			return err
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			b.say("%s", said)
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = context.Cause(ctx)
			}
			return err
		case <-time.After(every):
		}
	}
}
