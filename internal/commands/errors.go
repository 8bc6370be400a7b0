package commands

import (
	"context"
	"errors"

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
	{wire.ErrCommand, wire.Usage, ""},
	{wire.ErrName, wire.BadName, ""},
	{signer.ErrRequest, wire.BadRequest, ""},
	{errDenied, wire.Denied, ""},
	{signer.ErrHeld, wire.Denied, ""},
	{peers.ErrTaken, wire.Denied, ""},
	{signer.ErrRetry, wire.Retry, ""},
	{peers.ErrBusy, wire.Retry, ""},
	{signer.ErrUnrecorded, wire.Retry, "not now: the signer cannot write its ledger, so nothing changed; try again, and tell its operator to look at the journal"},
	{peers.ErrAway, wire.Retry, "not now: etcd does not answer the signer, so nothing changed; try again, and see the signer's journal if that does not help"},
	{context.DeadlineExceeded, wire.Retry, "not now: it took too long; try again"},
	{context.Canceled, wire.Retry, "not now: the signer is stopping; try again"},
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
