package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/problems"
	"github.com/signerd/signerd/signer"
)

// The exit codes of the process, as in sysexits(3). The unit restarts the
// daemon after some of them only.
const (
	exitUsage       = 64
	exitInput       = 66
	exitUnreachable = 69
	exitBug         = 70
	exitExists      = 73
	exitRetry       = 75
	exitDenied      = 77
	exitConfig      = 78
)

// exitError is an error with its exit code; without an error all was said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exit(code int, err error) error { return &exitError{code, err} }

func usagef(format string, args ...any) error { return exit(exitUsage, fmt.Errorf(format, args...)) }

// exitForListen gives the code for a port that cannot be had: an address that
// is not up yet, or still in use, may be free later.
func exitForListen(err error) error {
	code := exitConfig
	for _, passing := range []syscall.Errno{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS} {
		if errors.Is(err, passing) {
			code = exitRetry
		}
	}
	return exit(code, fmt.Errorf("listening for SSH: %w: see what else listens there, or change listen", err))
}

// exitForState gives the code for an error about the state on disk: what another
// process holds may be free later, and a machine whose clock is not set yet may have the
// right time then; anything else needs a person.
func exitForState(err error) error {
	switch {
	case errors.Is(err, durable.ErrLocked), errors.Is(err, signer.ErrEarly) && len(problems.List(err)) == 1:
		return exit(exitRetry, err)
	case errors.Is(err, fs.ErrExist):
		return exit(exitExists, err)
	}
	return exit(exitConfig, err)
}
