package commands

import (
	"context"
	"errors"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// statuses is everything a client may learn of an error: its status and its
// text, which is the error's own unless one stands here.
var statuses = []struct {
	err    error
	status wire.Status
	text   string
}{
	{errNoCommand, wire.Usage, wire.UsageText},
	{wire.ErrCommand, wire.Usage, ""},
	{wire.ErrName, wire.BadName, ""},
	{signer.ErrRequest, wire.BadRequest, ""},
	{errDenied, wire.Denied, ""},
	{signer.ErrHeld, wire.Denied, ""},
	{peers.ErrTaken, wire.Denied, ""},
	{signer.ErrRetry, wire.Retry, ""},
	{peers.ErrBusy, wire.Retry, ""},
	{sshfront.ErrInputOpen, wire.BadRequest, "bad request: the request on stdin did not end in time: send it as in base64 < client.csr | ssh signer@HOST NAME"},
	{errHalfRemoved, wire.Retry, "not now: the member is removed from etcd, but its name is still held, since the signer cannot write its ledger; ask again"},
	{signer.ErrUnrecorded, wire.Retry, "not now: the signer cannot write its ledger, so nothing was signed or released; ask again, and tell its operator to look at the journal"},
	{peers.ErrAway, wire.Retry, "not now: the signer cannot use etcd; ask again, and if that does not help look at the signer's journal"},
	{context.DeadlineExceeded, wire.Retry, "not now: it took too long; ask again"},
	{context.Canceled, wire.Retry, "not now: the connection ended; ask again"},
}

// public turns an error into what the client may know of it. One that is not
// in the table stays as it is, for the journal.
func public(err error) error {
	if _, ok := errors.AsType[*wire.Error](err); ok || err == nil {
		return err
	}
	for _, known := range statuses {
		if !errors.Is(err, known.err) {
			continue
		}
		text := known.text
		if text == "" {
			text = err.Error()
		}
		return &wire.Error{Status: known.status, Text: text, Cause: err}
	}
	return err
}
