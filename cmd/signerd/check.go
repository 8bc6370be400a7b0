package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/signer"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Load everything that serve and sync would, and list every problem",
		Args:  cobra.NoArgs,
	}
	here := hereFlags(cmd)
	supplied := cmd.Flags().Bool("supplied", false, "check only certificates that an operator supplies, if one does; etcd's unit does before it starts")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		if *supplied {
			return here.checkSupplied(now)
		}
		signs, m, err := here.load(now)
		if signs != nil {
			err = multierror.Append(err, signs.checkStart(), signs.superseded()).ErrorOrNil()
			// A ledger that is not there yet is begun with the first line.
			if _, ledgerErr := signer.Verify(signs.config.Ledger, nil); ledgerErr != nil && !errors.Is(ledgerErr, fs.ErrNotExist) {
				err = multierror.Append(err, ledgerErr)
			}
		}
		if m != nil {
			err = multierror.Append(err, member.Check(m, now)).ErrorOrNil()
		}
		if err != nil {
			return exit(exitConfig, err)
		}
		if signs != nil {
			active := signs.authority.Active()
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: cluster %s, CA %s until %s, %d authorized keys\n",
				signs.config.Cluster, active.Fingerprint(), active.Certificate.NotAfter.Format(time.RFC3339), signs.keys.Len())
		}
		if m != nil {
			_, memberErr := fmt.Fprintf(cmd.OutOrStdout(), "ok: member %s of %s\n", m.Name, m.Cluster)
			err = errors.Join(err, memberErr)
		}
		return err
	}
	return cmd
}

// checkSupplied refuses certificates with which etcd would start and be refused by
// the others. Nothing else keeps etcd from starting: not certificates that signerd
// renews, and not a member.yaml that does not load.
func (h here) checkSupplied(now time.Time) error {
	if !h.wanted("member", *h.member) {
		return nil
	}
	m, err := config.LoadMember(*h.member)
	if err != nil {
		_, err = fmt.Fprintf(h.cmd.ErrOrStderr(), "signerd: not checked before etcd starts: %v\n", err)
		return err
	}
	if m.Manage {
		return nil
	}
	if err := member.RefuseSupplied(m, now); err != nil {
		return exit(exitConfig, err)
	}
	return nil
}
