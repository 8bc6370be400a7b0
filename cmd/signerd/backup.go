package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/backup"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/signer"
)

func newCABackup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup --recipient RECIPIENT... --output FILE",
		Short: "Write all that makes this machine the signer into an encrypted file; the daemon may run",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	to := cmd.Flags().StringArray("recipient", nil, "who can open it: an age `RECIPIENT` (age1...) or an SSH public key, Ed25519 or RSA; repeatable")
	output := cmd.Flags().String("output", "", "the `FILE`, which must not be there yet; - is stdout")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(*to) == 0 || *output == "" {
			return usagef("backup needs --recipient and --output")
		}
		recipients, err := backup.ParseRecipients(*to)
		if err != nil {
			return usagef("%w", err)
		}
		now := time.Now()
		s, err := load(*path, now)
		if err != nil {
			return exit(exitConfig, err)
		}
		source := backup.Source{Path: *path, Config: s.config, Authority: s.authority}
		if *output == "-" {
			err = source.Write(cmd.OutOrStdout(), recipients, now)
		} else {
			err = source.Save(*output, recipients, now)
		}
		if err != nil {
			return exitForState(fmt.Errorf("writing the backup: %w", err))
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "backed up: the CA %s in all its generations, and the ledger; keep it on another machine, and the key that opens it on a third\n",
			s.authority.Active().Fingerprint())
		return err
	}
	return cmd
}

func newCARestore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore --identity KEY --fingerprint FINGERPRINT [--etcd URL...] [--listen ADDRESS] FILE",
		Short: "Make this machine the signer that a backup is of",
		Args:  cobra.ExactArgs(1),
	}
	path := configFlag(cmd, config.DefaultPath)
	identity := cmd.Flags().String("identity", "", "the `KEY` that opens it: a file of age-keygen, or an SSH private key")
	fingerprint := cmd.Flags().String("fingerprint", "", "the `FINGERPRINT` of the CA, as any member's ca.crt has it: a backup does not say who made it")
	var changes backup.Changes
	cmd.Flags().StringArrayVar(&changes.Etcd, "etcd", nil, "the client `URL` of a member, in the place of those in the backup; default this machine's, if it is a member")
	cmd.Flags().StringVar(&changes.Listen, "listen", "", "the `ADDRESS` to listen on, in the place of the one in the backup")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *identity == "" || *fingerprint == "" {
			return usagef("restore needs --identity and --fingerprint; on a member: openssl x509 -in /etc/etcd/pki/ca.crt -outform DER | sha256sum")
		}
		secret, err := durable.ReadSecret(*identity)
		if err != nil {
			return exit(exitInput, err)
		}
		identities, err := backup.ParseIdentities(secret)
		if err != nil {
			return exit(exitInput, fmt.Errorf("%s: %w", *identity, err))
		}
		if len(changes.Etcd) == 0 {
			m, err := config.LoadMember(config.DefaultMemberPath)
			if err == nil {
				changes.Etcd = []string{member.ClientURL(m.Addresses[0].String())}
			} else if !errors.Is(err, fs.ErrNotExist) {
				return exit(exitConfig, err)
			}
		}
		file, err := os.Open(args[0])
		if err != nil {
			return exit(exitInput, err)
		}
		defer file.Close() //nolint:errcheck // it is only read
		restored, err := backup.Restore(file, *path, *fingerprint, identities, changes, time.Now())
		if err != nil {
			return exitForState(err)
		}
		if err := startRestored(cmd.Context(), *path, restored.Authority); err != nil {
			return exit(exitRetry, fmt.Errorf("everything is restored, but it does not sign; put members' client URLs into etcd of %s if it cannot reach them; without a quorum: %s; journalctl -u signerd has more than this: %w",
				*path, rotation.Adopting(*fingerprint, withoutEtcd), err))
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored: the signer of %s, with the CA %s\n"+
			"members: put this machine's address into signers of /etc/signerd/member.yaml on each; clients ask it too, by the same host key\n"+
			"the machine that signed before must not sign again; if its etcd is lost: remove it (/usr/share/doc/signerd/runbook.md, A dead member)\n",
			restored.Config.Cluster, restored.Authority.Active().Fingerprint())
		return err
	}
	return cmd
}

// startRestored lets the daemon run from now on, where systemd runs this machine and
// the configuration is the unit's, and waits until it serves and etcd knows it.
func startRestored(ctx context.Context, path string, authority *signer.Authority) error {
	if !unit.Running() || path != config.DefaultPath {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := unit.Launch(ctx, member.SignerUnit); err != nil {
		return err
	}
	for {
		state, err := unit.Alive(ctx, member.SignerUnit)
		if err != nil {
			return err
		}
		if waits, err := authority.Unclaimed(); err != nil || !waits && state.Active == "active" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not come up, or etcd was not told of it, in a minute; its last words:\n%s", unit.Tail(context.WithoutCancel(ctx), member.SignerUnit, 5))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
