package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/renew"
)

func newSync() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Renew this member's certificate and CAs, and restart etcd if it trusts others",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultMemberPath)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		m, err := config.LoadMember(*path)
		if err != nil {
			return exit(exitConfig, err)
		}
		return exitForSync(renew.Sync(cmd.Context(), m, func(sentence string) {
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), sentence) // a reader that is gone must not end the work
		}))
	}
	return cmd
}

// exitForSync gives the code for what a run could not do. The next one may: that
// is the rule, and the timer's.
func exitForSync(err error) error {
	refused, isRefused := errors.AsType[*wire.Error](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, renew.ErrNotBack):
		return exit(exitRetry, err)
	case errors.Is(err, renew.ErrElsewhere), errors.Is(err, member.ErrSupplied):
		return exit(exitConfig, err)
	case isRefused && refused.Status == wire.Denied, errors.Is(err, sshclient.ErrLogin), errors.Is(err, sshclient.ErrHostKey):
		return exit(exitDenied, err)
	case errors.Is(err, sshclient.ErrUnreachable):
		return exit(exitUnreachable, err)
	}
	return exit(exitRetry, err)
}
