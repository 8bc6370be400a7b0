package signer

import (
	"fmt"
	"time"
)

// write is the only goroutine that writes: it takes whatever waits, as one
// batch, so that requests that come together share one fsync.
func (l *Ledger) write() {
	defer close(l.done)
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		case <-l.closing:
			// What waits was accepted before the end.
			for len(l.queue) > 0 {
				l.commit(l.gather(<-l.queue))
			}
			return
		}
	}
}

// gather gives all lines that wait by now, from the first one on.
func (l *Ledger) gather(first *pending) []*pending {
	batch := []*pending{first}
	for len(batch) < maxBatch {
		select {
		case p := <-l.queue:
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// commit decides each line of a batch in turn, each seeing those before it,
// and puts those that pass on disk with one mark at their end. Either all of
// them count or none does.
func (l *Ledger) commit(batch []*pending) {
	space := l.file.reserve(batch[0].entry.Time, len(batch))
	l.mu.Lock()
	var (
		accepted []*pending
		undo     []func()
		lines    []byte
		latest   time.Time
		head     = l.head
	)
	for _, p := range batch {
		err := l.decide(p, space)
		if err == nil {
			lines, err = head.append(lines, p.entry)
		}
		if err != nil {
			p.reply(err)
			continue
		}
		accepted = append(accepted, p)
		undo = append(undo, l.holds.apply(p.entry))
		if p.entry.Time.After(latest) {
			latest = p.entry.Time
		}
	}
	l.mu.Unlock()
	if len(accepted) == 0 {
		return
	}
	lines, err := head.append(lines, Entry{Event: committed, Time: latest, First: l.head.Seq + 1})
	if err == nil {
		end := l.options.Commit()
		err = l.file.append(lines, latest)
		end()
	}
	l.mu.Lock()
	if err == nil {
		l.head = head
		l.tidy()
	} else {
		err = fmt.Errorf("%w: %w", ErrUnrecorded, err)
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	l.mu.Unlock()
	for _, p := range accepted {
		p.reply(err)
	}
}

// decide says whether a line may be written. Without the reserve of disk space
// nothing is issued, so that what ends a hold or voids a certificate can still
// be recorded.
func (l *Ledger) decide(p *pending, space error) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.entry.Event != Issued || internal(p.entry.Profile) {
		return nil
	}
	if space != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, space)
	}
	return l.holds.check(p.entry, p.claim)
}

func (p *pending) reply(err error) {
	if p.answer != nil {
		p.answer <- err
	}
}

// tidy forgets what no longer matters, once for every file that is begun. It goes by a
// day that some files came after, not by the clock: one that is ahead for a while must not
// cost a name or a line.
func (l *Ledger) tidy() {
	day := l.file.settled
	if day.IsZero() {
		return
	}
	l.file.settled = time.Time{}
	l.holds.sweep(day)
	if l.options.Retention > 0 {
		l.file.prune(day.Add(-l.options.Retention))
	}
}
