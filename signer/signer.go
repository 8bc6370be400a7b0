// Package signer is the certificate authority: the generations of its key, the
// profiles of what it signs, the requests it accepts, and the ledger that
// records every certificate before it exists; signerd's own, which never leaves
// its memory, is recorded too, but nobody waits for it.
//
// It knows no SSH, no etcd, no log and no clock: callers pass the time and are
// told what happened.
package signer

import "errors"

// The classes of refusal that callers tell apart. The text of an error that
// wraps one of the first three may be shown to the client.
var (
	// ErrRequest is wrapped by refusals of a certificate signing request.
	ErrRequest = errors.New("bad request")
	// ErrHeld is wrapped when a name belongs to another key.
	ErrHeld = errors.New("denied")
	// ErrRetry is wrapped when nothing changed and a later attempt may pass.
	ErrRetry = errors.New("not now")
	// ErrUnrecorded is wrapped when the ledger could not be written: nothing
	// was signed. Its text is for the journal.
	ErrUnrecorded = errors.New("the ledger cannot be written")
)
