// Command first-boot turns a fresh machine into a member of an etcd cluster, and
// then removes itself. See first-boot(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/signerd/signerd/bootstrap"
	"github.com/signerd/signerd/internal/problems"
	"github.com/signerd/signerd/internal/version"
)

func main() {
	os.Exit(run(os.Args))
}

// The exit codes, as in sysexits(3).
const (
	exitUsage       = 64
	exitUnreachable = 69
	exitFailed      = 70
	exitExists      = 73
	exitRetry       = 75
	exitDenied      = 77
	exitPreflight   = 78
)

func run(args []string) int {
	// A kill -9 is survived too; these let a join undo itself.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // the way back is gone even if nobody listens any more
	syscall.Umask(0o022)           // what is to be read by etcd must not depend on the caller's
	root := newRoot(setupDir(args[0]))
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprint(os.Stderr, complain(err))
	}
	return exitCode(err)
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, bootstrap.ErrUsage):
		return exitUsage
	case errors.Is(err, bootstrap.ErrDone):
		return exitExists
	case errors.Is(err, bootstrap.ErrDenied):
		return exitDenied
	case errors.Is(err, bootstrap.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, bootstrap.ErrPreflight):
		return exitPreflight
	case errors.Is(err, bootstrap.ErrUndone), errors.Is(err, bootstrap.ErrBusy):
		return exitRetry
	}
	return exitFailed
}

// packageDir is where the package keeps what it copies to the setup folder.
const packageDir = "/usr/lib/signerd-first-boot"

// setupDir is the folder that removes itself: where the program was called from,
// if that is a setup folder.
func setupDir(program string) string {
	dir, err := filepath.Abs(filepath.Dir(program))
	if err != nil || dir == packageDir {
		return ""
	}
	if _, err := os.Stat(filepath.Join(dir, "first-boot.sh")); err != nil { //nolint:gosec // whoever starts the program says from where
		return ""
	}
	return dir
}

func newRoot(setup string) *cobra.Command {
	root := &cobra.Command{
		Use:   "first-boot",
		Short: "Turn a fresh machine into a member of an etcd cluster",
		Long: `first-boot makes this machine the first member of an etcd cluster with its CA and
its signer (init), or one more member (join). It looks at everything before it
changes anything, may be run again after whatever ended it, and removes itself
when it is done; see first-boot(8).`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: init or join; first-boot --help says more", bootstrap.ErrUsage)
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		DisableAutoGenTag: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; %s --help says more", bootstrap.ErrUsage, err, cmd.CommandPath())
	})
	root.AddCommand(newInit(setup), newJoin(setup))
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %q is one word too many; %s --help says more", bootstrap.ErrUsage, args[0], cmd.CommandPath())
	}
	return nil
}

func newInit(setup string) *cobra.Command {
	var o bootstrap.InitOptions
	cmd := &cobra.Command{Use: "init", Short: "Make the first member, the CA and the signer", Args: noArgs}
	flags := cmd.Flags()
	flags.StringVar(&o.Cluster, "cluster", "", "the cluster's `ID` (default etcd)")
	flags.StringVar(&o.Name, "name", "", "the member's `NAME` (default etcd-HOSTNAME)")
	flags.StringSliceVar(&o.Addresses, "address", nil, "an `ADDRESS` of this machine; the first is what the others dial (default: of the way out)")
	flags.StringVar(&o.Listen, "listen", "", "where the signer listens, `HOST:PORT` (default :22)")
	flags.StringVar(&o.Authorize, "authorize", "", "the signer's authorized_keys, a `FILE` (default: made of root's)")
	flags.StringVar(&o.CAKey, "key", "", "the `KIND` of the CA's key, p256 or p384 (default p256)")
	flags.StringArrayVar(&o.BackupRecipients, "backup-recipient", nil, "who can open a backup of the signer: an age `RECIPIENT` or an SSH public key, or none; may be repeated (default: asked for at the terminal)")
	flags.BoolVar(&o.DryRun, "dry-run", false, "look, list the steps, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if h := findHuman(); h != nil {
			o.Ask = h.recipient
		}
		return perform(cmd, setup, o.DryRun, func(ctx context.Context, observe bootstrap.Observer) (*bootstrap.Summary, error) {
			return bootstrap.Init(ctx, o, observe)
		})
	}
	return cmd
}

func newJoin(setup string) *cobra.Command {
	var o bootstrap.JoinOptions
	cmd := &cobra.Command{Use: "join --signer-ip ADDRESS", Short: "Make one more member", Args: noArgs}
	flags := cmd.Flags()
	flags.StringVar(&o.Signer, "signer-ip", "", "the signer's `ADDRESS`, with :PORT unless it is 22")
	flags.StringVar(&o.SignerFingerprint, "signer-fingerprint", "", "the `FINGERPRINT` of the signer's host key, SHA256:...")
	flags.StringSliceVar(&o.CAFingerprints, "ca-fingerprint", nil, "the `FINGERPRINT` of a CA that may be handed out; may be repeated")
	flags.StringVar(&o.Cluster, "cluster", "", "the `ID` that the cluster must have")
	flags.StringVar(&o.Name, "name", "", "the member's `NAME` (default etcd-HOSTNAME)")
	flags.StringSliceVar(&o.Addresses, "address", nil, "an `ADDRESS` of this machine; the first is what the others dial (default: as the signer sees it)")
	flags.StringVar(&o.Identity, "identity", "", "the private SSH key that may join, a `FILE` (default: root's)")
	flags.BoolVar(&o.DryRun, "dry-run", false, "look, list the steps, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Signer == "" {
			return fmt.Errorf("%w: join needs --signer-ip ADDRESS, as init printed it", bootstrap.ErrUsage)
		}
		if h := findHuman(); h != nil {
			o.Ask = h.knows
		}
		return perform(cmd, setup, o.DryRun, func(ctx context.Context, observe bootstrap.Observer) (*bootstrap.Summary, error) {
			return bootstrap.Join(ctx, o, observe)
		})
	}
	return cmd
}

// perform runs init or join with a log, tells how it ends, and cleans up.
func perform(cmd *cobra.Command, setup string, dryRun bool, do func(context.Context, bootstrap.Observer) (*bootstrap.Summary, error)) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: first-boot must be run as root", bootstrap.ErrPreflight)
	}
	out, closeLog, err := newProgress(cmd, dryRun)
	if err != nil {
		return err
	}
	defer closeLog()
	summary, err := do(cmd.Context(), out.observe)
	if errors.Is(err, bootstrap.ErrDone) && setup != "" && !dryRun {
		// It succeeded, and was ended before the folder was gone.
		if receipt, readErr := bootstrap.ReadReceipt(); readErr == nil && receipt != nil && receipt.Command == cmd.Name() {
			summary, err = receipt, nil
		}
	}
	if err != nil || summary == nil {
		out.failed(err)
		return err
	}
	out.summary(summary)
	if setup == "" {
		return nil
	}
	gone, err := bootstrap.Clean(setup)
	if err != nil {
		return fmt.Errorf("all is done, but %s cannot be removed: %w", setup, err)
	}
	out.cleaned(setup, gone)
	return nil
}

// complain gives an error as a person is to read it; a list has a line each.
func complain(err error) string {
	list := problems.List(err)
	if len(list) < 2 || list[0] != bootstrap.ErrPreflight { //nolint:errorlint // the verdict's own element, and nothing that wraps it
		return printable(fmt.Sprintf("first-boot: %v\n", err))
	}
	text := "first-boot: this stands in the way; nothing was changed:\n"
	for _, problem := range list[1:] {
		text += fmt.Sprintf("  - %v\n", problem)
	}
	return printable(text)
}
