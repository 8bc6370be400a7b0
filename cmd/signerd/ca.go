package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/signer"
)

func newCA() *cobra.Command {
	return group("ca", "Make or bring the CA, while the daemon is stopped", newCACreate(), newCAImport())
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
		return describe(cmd, "imported", c, generation)
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
