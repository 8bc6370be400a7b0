package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// Heads keeps the head of the ledger in etcd, by which a ledger whose end was cut off is
// found out, and a copy of this signer that keeps a ledger of its own. Its methods are for
// one goroutine.
type Heads struct {
	driver *Driver

	compared bool   // the head in etcd was held against the ledger, which has it
	ours     bool   // that was so once, since the start
	foreign  []byte // the head in etcd that is not in the ledger; nil: none
	unread   string // why the ledger could not be looked into for that head; empty: it could
	saved    signer.Head
	revision int64 // of the head in etcd, as it was saved or compared last
}

// Heads makes a Heads.
func (d *Driver) Heads() *Heads { return &Heads{driver: d} }

// Finding is what is new about the head that etcd has, for the log.
type Finding struct {
	Says string // empty: nothing is new
	Etcd []byte // the head
}

// Save keeps the ledger's head in etcd, after it has compared the one that is there, if
// that is not its own. One that the ledger does not have is evidence, and stays until a
// person decides. The error wraps ErrSuperseded if another signer writes there now, or
// peers.ErrAway.
func (h *Heads) Save(ctx context.Context) (Finding, error) {
	var f Finding
	if !h.compared {
		var err error
		if f, err = h.compareTheirs(ctx); err != nil || !h.compared {
			return f, err
		}
	}
	head := h.driver.signer.Ledger().Head()
	if head == h.saved {
		return f, nil
	}
	value, err := json.Marshal(head)
	if err != nil {
		return f, err
	}
	revision, err := h.driver.cluster.SaveLedgerHead(ctx, h.driver.claimed.Load(), h.revision, value)
	if errors.Is(err, peers.ErrBusy) {
		h.compared = false // it may be our own, of a call that seemed to fail; first it is asked again who signs
		return f, nil
	}
	if err != nil {
		return f, err
	}
	h.saved, h.revision = head, revision
	return f, nil
}

// compareTheirs compares the head that etcd has. One that is not ours is a second signer's
// if it was ours since the start, or if it has changed: then somebody writes it now.
func (h *Heads) compareTheirs(ctx context.Context) (Finding, error) {
	value, revision, err := h.driver.cluster.LedgerHead(ctx)
	if err != nil {
		return Finding{}, err
	}
	h.revision = revision
	rival := h.ours || h.foreign != nil && !bytes.Equal(value, h.foreign)
	f := h.compare(value)
	if h.unread != "" || h.foreign == nil || !rival {
		return f, nil
	}
	authority := h.driver.signer.Authority()
	return f, noteSuperseded(authority, fmt.Errorf("%w: a copy of this signer runs elsewhere and keeps a ledger of its own, or this machine was put back to an older state: "+
		"disable the signer that is wrong; if this one is to sign: %s", ErrSuperseded, Adopting(authority.Active().Fingerprint())))
}

// compare holds the head that etcd has, or nothing, against the ledger, and says what is
// new about that. A ledger that cannot be read is no trouble with etcd, and looked into
// again the next time.
func (h *Heads) compare(value []byte) Finding {
	if h.foreign != nil && bytes.Equal(value, h.foreign) {
		return Finding{} // said already, and nothing changed
	}
	there, err := h.contains(value)
	if err != nil {
		said := err.Error() == h.unread
		if h.unread = err.Error(); said {
			return Finding{}
		}
		return Finding{"the ledger cannot be held against the head that was kept in etcd, which stays: signerd ledger verify: " + h.unread, value}
	}
	h.unread = ""
	if there {
		h.compared, h.ours, h.foreign = true, true, nil
		return Finding{}
	}
	h.foreign = value
	return Finding{"the ledger does not reach the head that was kept in etcd: its end was cut off, it was restored from an older copy, or a copy of this signer is running; " +
		"when you know why, and no other signer runs, etcdctl del /signerd/ledger lets the ledger as it is count", value}
}

// contains says whether the ledger has a head; what etcd does not have counts as had, and
// what is no head does not.
func (h *Heads) contains(value []byte) (bool, error) {
	if value == nil {
		return true, nil
	}
	var head signer.Head
	if json.Unmarshal(value, &head) != nil {
		return false, nil //nolint:nilerr // no ledger has it
	}
	return h.driver.signer.Ledger().Contains(head)
}
