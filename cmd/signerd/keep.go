package main

import (
	"context"
	"errors"
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
	heads   *rotation.Heads
	watch   *watch

	shepherd peers.Shepherd
	urls     []string // of members, as they were saved last
	trouble  string   // with etcd at the last look; empty: none
	refused  string   // why etcd lets somebody not vote, at the last look
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
	if err := k.heed(k.driver.Claim(ctx)); err != nil {
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

// heed lets the signer sign, or stops it: where another one does, or with another CA, or
// where etcd does not know this one yet, it signs nothing. Any other error says nothing.
func (k *keeper) heed(err error) error {
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

// saveHead keeps the ledger's head in etcd, and logs what is new about the one there.
func (k *keeper) saveHead(ctx context.Context) error {
	found, err := k.heads.Save(ctx)
	if found.Says != "" {
		head := k.signer.Ledger().Head()
		k.log.Error().Bytes("etcd", found.Etcd).Uint64("seq", head.Seq).Stringer("hash", head.Hash).Msg(found.Says)
	}
	return k.heed(err)
}
