package wire

import (
	"errors"
	"fmt"
)

// Status is the exit status of a command, as the client's ssh returns it. The
// values above 63 are those of sysexits(3). 1 is never used: ssh clients and
// shells use it for faults of their own; 255 is ssh's.
type Status uint32

// The statuses there are.
const (
	OK         Status = 0
	BadName    Status = 2  // the name or its addresses are not acceptable
	BadRequest Status = 3  // the certificate signing request is not acceptable
	Usage      Status = 64 // EX_USAGE: unknown command or arguments
	Internal   Status = 70 // EX_SOFTWARE: our fault; details in the journal only
	Retry      Status = 75 // EX_TEMPFAIL: not now; asking again is safe
	Denied     Status = 77 // EX_NOPERM: this key may not
)

// Error is an error that may be shown to a client: its text becomes the one
// line on stderr.
type Error struct {
	Status Status
	Text   string
	Cause  error // for the journal only; nil: Text says it all
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(status Status, format string, args ...any) *Error {
	return &Error{Status: status, Text: fmt.Sprintf(format, args...)}
}

// StatusOf gives the status that err ends a session with: OK for nil, the
// status of an Error, and Internal for everything else.
func StatusOf(err error) Status {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return Internal
}
