package commands

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// said is what a client may learn of an error.
type said struct {
	err    error
	status wire.Status
	reason string
	text   string
}

// statuses is everything a client may learn of an error: its status and its
// text, which is the error's own unless one stands here. The reason is for
// whoever counts. The first row counts that an error wraps: one that says more
// stands above what it wraps too.
var statuses = []said{
	{errNoCommand, wire.Usage, "no_command", wire.UsageText},
	{wire.ErrCommand, wire.Usage, "bad_command", ""},
	{wire.ErrName, wire.BadName, "bad_name", ""},
	{signer.ErrRequest, wire.BadRequest, "bad_request", ""},
	{errDenied, wire.Denied, "not_permitted", ""},
	{signer.ErrHeld, wire.Denied, "name_held", ""},
	{peers.ErrTaken, wire.Denied, "member_taken", ""},
	{rotation.ErrBlocked, wire.Retry, "rotation_blocked", ""},
	{rotation.ErrForeign, wire.Retry, "foreign_ca", ""},
	{rotation.ErrUnclaimed, wire.Retry, "unclaimed", "not now: this signer was restored from a backup, and signs when etcd knows it; ask again, and look at its journal"},
	{rotation.ErrSuperseded, wire.Retry, "superseded", ""},
	{rotation.ErrStrange, wire.Retry, "foreign_ca", ""},
	{signer.ErrRetry, wire.Retry, "limit", ""},
	{peers.ErrBusy, wire.Retry, "etcd_busy", ""},
	{sshfront.ErrInputOpen, wire.BadRequest, "input_open", "bad request: the request on stdin did not end in time: send it as in base64 < client.csr | ssh signer@HOST NAME"},
	{errHalfRemoved, wire.Retry, "ledger", "not now: the member is removed from etcd, but its name is still held, since the signer cannot write its ledger; ask again"},
	{signer.ErrUnrecorded, wire.Retry, "ledger", "not now: the signer cannot write its ledger, so nothing was signed or released; ask again, and tell its operator to look at the journal"},
	{peers.ErrAway, wire.Retry, "etcd_away", "not now: the signer cannot use etcd; ask again, and if that does not help look at the signer's journal"},
	{syscall.ENOSPC, wire.Retry, "disk_full", "not now: the signer's disk is full, and what was asked may be done or not; ask again, and tell its operator to make room"},
	{context.DeadlineExceeded, wire.Retry, "timeout", "not now: it took too long; ask again"},
	{context.Canceled, wire.Retry, "client_gone", "not now: the connection ended; ask again"},
}

// lookup gives what the table says of an error; all zero if it is not in it.
func lookup(err error) said {
	if i := slices.IndexFunc(statuses, func(s said) bool { return errors.Is(err, s.err) }); i >= 0 {
		return statuses[i]
	}
	return said{}
}

// reasonOf gives the reason of an error, in a word.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return cmp.Or(lookup(err).reason, "internal")
}

// public turns an error into what the client may know of it. One that is not
// in the table stays as it is, for the journal.
func public(err error) error {
	if _, ok := errors.AsType[*wire.Error](err); ok || err == nil {
		return err
	}
	s := lookup(err)
	if s.err == nil {
		return err
	}
	oneLine := strings.ReplaceAll(err.Error(), "\n", "; ")
	return &wire.Error{Status: s.status, Text: cmp.Or(s.text, oneLine), Cause: err}
}
