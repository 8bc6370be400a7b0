package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"github.com/signerd/signerd/signer"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Load everything that serve would, and list every problem",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(*path, time.Now())
		if s != nil {
			// A ledger that is not there yet is begun with the first line.
			if _, ledgerErr := signer.Verify(s.config.Ledger, nil); ledgerErr != nil && !errors.Is(ledgerErr, fs.ErrNotExist) {
				err = multierror.Append(err, ledgerErr)
			}
		}
		if err != nil {
			return exit(exitConfig, err)
		}
		active := s.authority.Generations()[0]
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: cluster %s, CA %s until %s, %d authorized keys\n",
			s.config.Cluster, active.Fingerprint(), active.Certificate.NotAfter.Format(time.RFC3339), s.keys.Len())
		return err
	}
	return cmd
}
