package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/signer"
)

func newCA() *cobra.Command {
	return group("ca", "Make, bring, claim, save or restore the CA", newCACreate(), newCAImport(), newCAAdopt(), newCABackup(), newCARestore())
}

func newCACreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a new CA: self-signed, for ten years",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	kind := cmd.Flags().String("key", "p256", "the `KIND` of its key, p256 or p384")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return exit(exitConfig, err)
		}
		if _, ok := signer.CAKeys[*kind]; !ok {
			return usagef("--key is p256 or p384, not %q", *kind)
		}
		generation, err := signer.CreateAuthority(c.Authority, c.Cluster, *kind, time.Now())
		if err != nil {
			return exitForState(fmt.Errorf("making the CA: %w", err))
		}
		return describe(cmd, "made", c, generation)
	}
	return cmd
}

func newCAImport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import --cert FILE --key FILE",
		Short: "Take over a CA that openssl, kubeadm or older scripts made",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	certPath := cmd.Flags().String("cert", "", "its certificate, a PEM `FILE`")
	keyPath := cmd.Flags().String("key", "", "its unencrypted private key, a PEM `FILE` of mode 0600")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *certPath == "" || *keyPath == "" {
			return usagef("import needs --cert and --key")
		}
		c, err := config.Load(*path)
		if err != nil {
			return exit(exitConfig, err)
		}
		certPEM, err := os.ReadFile(*certPath)
		if err != nil {
			return exit(exitInput, err)
		}
		keyPEM, err := durable.ReadSecret(*keyPath)
		if err != nil {
			return exit(exitInput, err)
		}
		generation, err := signer.ImportAuthority(c.Authority, certPEM, keyPEM, time.Now())
		if err != nil {
			return exitForState(fmt.Errorf("importing the CA: %w", err))
		}
		if err := describe(cmd, "imported", c, generation); err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "note: what it signed elsewhere is not in the ledger: give everybody who has such a certificate one from here before a rotation replaces this CA\n"+
			"note: if a signer was lost whose CA this is: signerd ca adopt --fingerprint "+generation.Fingerprint())
		return err
	}
	return cmd
}

// describe says what a CA is and what its operator should know of it.
func describe(cmd *cobra.Command, done string, c *config.Config, g *signer.Generation) error {
	out := cmd.OutOrStdout()
	_, err := fmt.Fprintf(out, "%s: %s\nfingerprint: %s\nvalid until: %s\nsave this key: %s\n",
		done, g.Certificate.Subject, g.Fingerprint(), g.Certificate.NotAfter.Format(time.RFC3339),
		filepath.Join(c.Authority, "active.key"))
	if err == nil && !g.CanCrossSign() {
		_, err = fmt.Fprintln(out, "note: its path length of 0 lets it sign no other CA, so its rotation takes two restarts of each member instead of one")
	}
	return err
}

func newCAAdopt() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "adopt --fingerprint FINGERPRINT",
		Short: "Let this signer sign for the cluster, whoever does so by etcd",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	fingerprint := cmd.Flags().String("fingerprint", "", "the `FINGERPRINT` of the CA that is to sign, which must be here")
	alone := cmd.Flags().Bool("without-etcd", false, "do not ask etcd, which needs certificates from here before it can answer; it is told later")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *fingerprint == "" {
			return usagef("adopt needs --fingerprint; signerd check prints that of the CA that is here")
		}
		s, err := load(*path, time.Now())
		if s != nil && !*alone {
			err = multierror.Append(err, s.checkStart()).ErrorOrNil() // before anything is changed
		}
		if err != nil {
			return exit(exitConfig, err)
		}
		if is := s.authority.Active().Fingerprint(); is != *fingerprint {
			return exit(exitConfig, fmt.Errorf("the CA that signs here is %s, not %s", is, *fingerprint))
		}
		if err := adopt(cmd.Context(), s, *alone); err != nil {
			return err
		}
		done := "adopted: this signer signs, and takes over when etcd can be asked; keep any other one off, or disable this one first"
		if !*alone {
			tenure := s.authority.Tenure()
			done = fmt.Sprintf("adopted: the signer %s signs, in epoch %d, and no other one", tenure.Signer, tenure.Epoch)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), done+"; start it: systemctl start signerd")
		return err
	}
	return cmd
}

// withoutEtcd is the flag with which etcd is told later.
const withoutEtcd = "--without-etcd"

// beDaemon makes this process, if root started it, the daemon's user: what is written from
// here on is the daemon's, whatever ends it. What root has left there is handed over.
func beDaemon(c *config.Config) error {
	if err := errors.Join(durable.HandOver(c.Authority), durable.HandOver(c.Ledger)); err != nil {
		return err
	}
	owner, err := durable.OwnerOf(c.Authority)
	if err != nil {
		return err
	}
	if err := owner.Become(); err != nil {
		return fmt.Errorf("going on as the user that %s belongs to: %w", c.Authority, err)
	}
	return nil
}

// adopt says in etcd that this signer signs. The ledger's lock keeps the daemon out.
func adopt(ctx context.Context, s *setup, alone bool) (err error) {
	if err := beDaemon(s.config); err != nil {
		return exitForState(err)
	}
	signs, _, err := signer.Open(s.parts(), time.Now())
	if errors.Is(err, durable.ErrLocked) {
		var flags []string
		if alone {
			flags = append(flags, withoutEtcd)
		}
		err = fmt.Errorf("%w: the daemon runs: %s", err, rotation.Adopting(s.authority.Active().Fingerprint(), flags...))
	}
	if err != nil {
		return exitForState(err)
	}
	defer func() { err = errors.Join(err, signs.Close()) }()
	if alone {
		if err := s.authority.TakeOverUntold(time.Now()); err != nil {
			return exitForState(err)
		}
		return nil
	}
	cluster, err := s.connect(signs)
	if err != nil {
		return exit(exitConfig, err)
	}
	defer cluster.Close() //nolint:errcheck // nothing is left to do on it
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	if err := rotation.New(signs, cluster, s.trust).Adopt(ctx); err != nil {
		return exit(exitRetry, fmt.Errorf("%w; if etcd needs certificates from here before it can answer: %s", err,
			rotation.Adopting(s.authority.Active().Fingerprint(), withoutEtcd)))
	}
	return nil
}

// adoptTimeout bounds the talk with etcd.
const adoptTimeout = 15 * time.Second
