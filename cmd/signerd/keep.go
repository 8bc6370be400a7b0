package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// How often etcd is looked at: in general, while it cannot be used, and while a member
// joins.
const (
	keepEvery  = 10 * time.Second
	retryEvery = 2 * time.Second
	joinEvery  = 500 * time.Millisecond
)

// keeper does what nobody asks for: it makes sure that this signer is the one that signs,
// promotes members that join, and keeps the ledger's head in etcd.
type keeper struct {
	config  *config.Config
	log     zerolog.Logger
	cluster *peers.Cluster
	signer  *signer.Signer
	driver  *rotation.Driver
	watch   *watch
	// restored: it began as a backup that etcd did not know, whose ledger may be older than
	// etcd's head.
	restored bool

	shepherd peers.Shepherd
	urls     []string // of members, as they were saved last
	trouble  string   // with etcd at the last look; empty: none
	refused  string   // why etcd lets somebody not vote, at the last look
	compared bool     // the head in etcd was held against the ledger
	foreign  []byte   // the head in etcd that is not in the ledger; nil: none
	unread   string   // why the ledger could not be looked into for that head; empty: it could
	saved    signer.Head
	revision int64 // of the head in etcd, as it was saved or compared last
	ours     bool  // the head in etcd was, since the start
}

// keep goes on until ctx ends.
func (k *keeper) keep(ctx context.Context) {
	for {
		pause := keepEvery
		switch joining := k.look(ctx); {
		case joining:
			pause = joinEvery
		case k.trouble != "":
			pause = retryEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-k.cluster.Registered():
		case <-time.After(pause):
		}
	}
}

// look does one round and says whether a member is joining.
func (k *keeper) look(ctx context.Context) (joining bool) {
	if err := k.claim(ctx); err != nil {
		k.watch.usable(false)
		k.note(err)
		return false
	}
	promoted, learners, err := k.cluster.Promote(ctx)
	for _, name := range promoted {
		k.log.Info().Str("member", name).Msg("the member votes")
	}
	if err == nil {
		k.noteRefused(learners)
		// A member that cannot be given up must not keep the rest from its work.
		err = errors.Join(k.giveUp(ctx, k.shepherd.Late(time.Now(), learners)), k.saveHead(ctx))
		k.saveURLs()
	}
	if ctx.Err() != nil {
		return false
	}
	k.watch.usable(err == nil)
	k.note(err)
	return len(learners) > 0
}

// saveURLs keeps where members are, when that has changed.
func (k *keeper) saveURLs() {
	urls := k.cluster.Endpoints()
	if slices.Equal(urls, k.urls) {
		return
	}
	k.urls = urls // what cannot be written is said once
	if err := saveEndpoints(k.config, urls); err != nil {
		k.log.Warn().Err(err).Msg("where the members are cannot be kept for the next start")
	}
}

// claim makes sure that this signer is the one that signs. Where another one does, or
// with another CA, or etcd does not know this one yet, it signs nothing.
func (k *keeper) claim(ctx context.Context) error {
	err := k.driver.Claim(ctx)
	if err == nil || rotation.Stops(err) {
		k.signer.Stop(err)
	}
	return err
}

// giveUp takes members out whose join died, so that others can join and the
// names are free.
func (k *keeper) giveUp(ctx context.Context, names []string) error {
	var trouble error
	for _, name := range names {
		err := k.cluster.GiveUp(ctx, name, func(ctx context.Context) error {
			_, err := k.signer.Ledger().Release(ctx, time.Now(), name, signer.Asker{SSHKey: signer.SelfName})
			return err
		})
		if err != nil {
			trouble = errors.Join(trouble, err)
			continue
		}
		k.log.Warn().Str("member", name).Dur("unreachable", peers.Patience).Msg("the member did not join in time: it was removed, and its name released")
	}
	return trouble
}

// note logs what changed about etcd.
func (k *keeper) note(err error) {
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	if trouble == k.trouble {
		return
	}
	k.trouble = trouble
	switch {
	case err == nil:
		k.log.Info().Msg("etcd can be used again")
	case rotation.Forbids(err):
		k.log.Error().Err(err).Msg("nothing is signed any more")
	case rotation.Stops(err):
		k.log.Warn().Err(err).Msg("nothing is signed until etcd knows this signer")
	default:
		k.log.Warn().Err(err).Msg("etcd cannot be used; clients and renewals are served")
	}
}

// noteRefused logs why members that are in sync may not vote, when that has changed.
func (k *keeper) noteRefused(joining []peers.Joining) {
	refused := ""
	for _, j := range joining {
		if j.Refused != nil {
			refused += j.Name + ": " + j.Refused.Error() + "; "
		}
	}
	if refused != k.refused && refused != "" {
		k.log.Warn().Str("reason", refused).Msg("a member that joins may not vote yet")
	}
	k.refused = refused
}

// saveHead keeps the ledger's head in etcd, after it has compared the one that
// is there, if that is not its own. One that the ledger does not have is evidence, and
// stays until a person decides.
func (k *keeper) saveHead(ctx context.Context) error {
	if !k.compared {
		if err := k.compareHead(ctx); err != nil || !k.compared {
			return err
		}
	}
	head := k.signer.Ledger().Head()
	if head == k.saved {
		return nil
	}
	value, err := json.Marshal(head)
	if err != nil {
		return err
	}
	revision, err := k.cluster.SaveLedgerHead(ctx, k.driver.Signing(), k.revision, value)
	if errors.Is(err, peers.ErrBusy) {
		k.compared = false // it may be our own, of a call that seemed to fail
		return k.compareHead(ctx)
	}
	if err != nil {
		return err
	}
	k.saved, k.revision = head, revision
	return nil
}

// compareHead compares the head that is there. One that is not ours is a second signer's
// if it was ours since the start, or if it has changed: then somebody writes it now.
func (k *keeper) compareHead(ctx context.Context) error {
	value, revision, err := k.cluster.LedgerHead(ctx)
	if err != nil {
		return err
	}
	k.revision = revision
	rival := k.ours || k.foreign != nil && !bytes.Equal(value, k.foreign)
	k.compare(value)
	if k.compared {
		k.ours = true
	}
	if k.foreign == nil || !rival {
		return nil
	}
	err = fmt.Errorf("%w: a copy of this signer runs elsewhere and keeps a ledger of its own, or this machine was put back to an older state; "+
		"disable the signer that is wrong, and if this one is to sign: signerd ca adopt", rotation.ErrSuperseded)
	k.signer.Stop(err)
	return errors.Join(err, k.signer.Authority().NoteSuperseded())
}

// compare holds the head that etcd has, or nothing, against the ledger, and logs what is
// new about that. A ledger that cannot be read is no trouble with etcd, and looked into
// again the next time.
func (k *keeper) compare(value []byte) {
	if k.foreign != nil && bytes.Equal(value, k.foreign) {
		return // said already, and nothing changed
	}
	if value == nil {
		k.foreign, k.compared = nil, true
		return
	}
	ledger := k.signer.Ledger()
	var head signer.Head
	there, unread := false, ""
	if json.Unmarshal(value, &head) == nil {
		var err error
		if there, err = ledger.Contains(head); err != nil {
			unread = err.Error()
		}
	}
	said := unread == k.unread
	if k.unread = unread; unread != "" {
		if !said {
			k.log.Error().Str("reason", unread).Msg("the ledger cannot be held against the head that was kept in etcd, which stays: signerd ledger verify")
		}
		return
	}
	k.foreign = nil
	if k.restored && !k.ours && !there {
		k.log.Warn().Bytes("etcd", value).Uint64("seq", ledger.Head().Seq).Msg("the restored ledger does not reach the head that was kept in etcd; from now on it counts as it is")
		there = true
	}
	if k.compared = there; there {
		return
	}
	k.foreign = value
	k.log.Error().Bytes("etcd", value).Uint64("seq", ledger.Head().Seq).Stringer("hash", ledger.Head().Hash).
		Msg("the ledger does not reach the head that was kept in etcd: its end was cut off, it was restored from an older copy, or a copy of this signer is running; " +
			"when you know why, and no other signer runs, etcdctl del /signerd/ledger lets the ledger as it is count")
}
