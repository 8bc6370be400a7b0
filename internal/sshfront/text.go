package sshfront

import (
	"errors"
	"strings"

	"github.com/rs/zerolog"

	"github.com/signerd/signerd/internal/wire"
)

// publicText is what a client learns of an error: the text of a *wire.Error
// (as it stands, if it is whole lines), and nothing of any other.
func publicText(err error) string {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		if text, usage := strings.CutSuffix(e.Text, "\n"); usage {
			return text
		}
		return "signerd: " + e.Text
	}
	return "signerd: internal error; the signer's journal says more"
}

// reason is what the journal learns of an error: all of it.
func reason(err error) string {
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Cause != nil {
		return e.Cause.Error()
	}
	return err.Error()
}

func levelOf(status wire.Status) zerolog.Level {
	switch status {
	case wire.Internal:
		return zerolog.ErrorLevel
	case wire.OK:
		return zerolog.InfoLevel
	}
	return zerolog.WarnLevel
}
