package signer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// LedgerOptions bound a ledger.
type LedgerOptions struct {
	PerNamePerHour int           // certificates for one name; 0: no limit
	Retention      time.Duration // how long files are kept; 0: for ever

	// Commit is called before a batch is written, and what it gives after; nil:
	// nobody measures.
	Commit func() (end func())
}

// Ledger is the append-only record of what was issued, and of who holds what
// name by it. Its methods may be called from any goroutine.
type Ledger struct {
	dir     string
	options LedgerOptions
	unlock  func() error
	queue   chan *pending
	closing chan struct{} // closed when nothing more is accepted
	done    chan struct{} // closed when the writer has ended

	// While a batch is written holds is ahead of the disk: a reader may see a line that is
	// undone. Only the writer sets head, and may read it without the lock.
	mu    sync.RWMutex // guards holds and head
	holds *holds
	head  Head

	file *ledgerFile // the writer's own
}

// pending is a line that waits for its batch.
type pending struct {
	ctx    context.Context
	entry  Entry
	claim  Claim
	answer chan error // buffered; nil: nobody waits
}

// maxBatch bounds how many lines share one commit mark.
const maxBatch = 512

// OpenLedger opens the ledger in dir, which is made if it is missing, for
// writing by this process alone. It checks the whole chain, cuts off a batch
// that a crash left unfinished (nobody was answered from it) and says how many
// bytes that were. Any other damage is a *DamageError.
func OpenLedger(dir string, options LedgerOptions) (l *Ledger, cut int64, err error) {
	if err := errors.Join(os.MkdirAll(dir, 0o700), durable.SyncDir(filepath.Dir(dir))); err != nil {
		return nil, 0, fmt.Errorf("opening the ledger: %w", err)
	}
	if options.Commit == nil {
		options.Commit = func() func() { return func() {} }
	}
	unlock, err := durable.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, 0, fmt.Errorf("opening the ledger: %w", err)
	}
	l = &Ledger{
		dir:     dir,
		options: options,
		unlock:  unlock,
		queue:   make(chan *pending, maxBatch),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		holds:   newHolds(options.PerNamePerHour),
	}
	end, err := replay(dir, func(e Entry) { l.holds.apply(e) })
	if err == nil {
		l.file, err = openLedgerFile(dir, end)
	}
	if err != nil {
		return nil, 0, errors.Join(err, unlock())
	}
	l.head = end.head
	go l.write()
	return l, end.torn, nil
}

// Close ends the writer after the lines that wait, and lets another process at
// the ledger. Whoever records something later is told that it was not.
func (l *Ledger) Close() error {
	close(l.closing)
	<-l.done
	return errors.Join(l.file.close(), l.unlock())
}

// Take records an issue and with it takes the name, in one durable step. It
// returns once the line is on disk. The error wraps ErrHeld, ErrRetry,
// ErrUnrecorded or is the context's; then nothing is recorded.
func (l *Ledger) Take(ctx context.Context, e Entry, claim Claim) error {
	return l.append(&pending{ctx: ctx, entry: e, claim: claim})
}

// Release ends the hold of a name, durably, and gives what was held: nil if
// nobody held it.
func (l *Ledger) Release(ctx context.Context, now time.Time, name string, by Asker) (*Hold, error) {
	held := l.Hold(name)
	if held == nil {
		return nil, nil
	}
	return held, l.append(&pending{ctx: ctx, entry: Entry{
		Event: Released, Time: now.UTC().Round(0), Name: name, SSHKey: by.SSHKey, Source: by.Source,
	}})
}

// rotate records that a step of a rotation is about to be done, after which active
// signs.
func (l *Ledger) rotate(ctx context.Context, now time.Time, c Change, active *Generation) error {
	return l.append(&pending{ctx: ctx, entry: Entry{
		Event: Rotated, Time: now.UTC().Round(0), Generation: active.ID, Step: c.Step, SSHKey: c.By.SSHKey, Source: c.By.Source,
	}})
}

// Note records a line that nobody waits for. It is lost if the ledger cannot
// be written.
func (l *Ledger) Note(e Entry) {
	select {
	case l.queue <- &pending{ctx: context.Background(), entry: e}:
	case <-l.closing:
	}
}

func (l *Ledger) append(p *pending) error {
	p.answer = make(chan error, 1)
	select {
	case l.queue <- p:
	case <-l.closing:
		return errClosed
	}
	select {
	case err := <-p.answer:
		return err
	case <-l.done:
	}
	select {
	case err := <-p.answer:
		return err
	default:
		return errClosed // it came a moment too late
	}
}

var errClosed = fmt.Errorf("%w: it is closed", ErrUnrecorded)

// Head gives the end of what is committed.
func (l *Ledger) Head() Head {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head
}

// Contains says whether an earlier head is in this ledger: if not, its end was
// cut off or it is another ledger. It reads the file that the head would be in.
func (l *Ledger) Contains(head Head) (bool, error) {
	if now := l.Head(); head.Seq >= now.Seq {
		return head == now, nil
	}
	return contains(l.dir, head)
}

// Hold gives who holds a name, by a certificate that lives or not; nil if
// nobody does. The result is a snapshot.
func (l *Ledger) Hold(name string) *Hold {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if s := l.holds.byName[name]; s != nil {
		return s.hold
	}
	return nil
}

// HeldBy gives the names for which a certificate key is a way in at now.
func (l *Ledger) HeldBy(key PublicKey, now time.Time) []*Hold {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var held []*Hold
	for _, name := range l.holds.byKey.names(key.Fingerprint()) {
		if hold := l.holds.byName[name].hold; hold.admits(now) {
			held = append(held, hold)
		}
	}
	return held
}

// Expected gives the holds whose certificates live, or should have been renewed,
// by name.
func (l *Ledger) Expected(now time.Time) []*Hold {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.holds.expected(now)
}

// Repeats says whether a member's request is what its last line has: then it
// is a renewal, and etcd need not be asked.
func (l *Ledger) Repeats(subject Subject, key PublicKey) bool {
	hold := l.Hold(subject.name)
	return hold != nil && hold.repeats(Entry{Profile: subject.profile.name, Key: key.Fingerprint(), Addresses: subject.addresses})
}

// check says what Take would now say of an order, without taking anything.
func (l *Ledger) check(now time.Time, order Order) error {
	if err := freeSpace(l.dir); err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.holds.check(Entry{
		Time: now, Name: order.Subject.name, Profile: order.Subject.profile.name,
		Key: order.Key.Fingerprint(), Addresses: order.Subject.addresses,
	}, order.Claim)
}
