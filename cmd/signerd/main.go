// Command signerd is a certificate authority for an etcd cluster, operated with
// nothing but ssh. See signerd(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/problems"
	"github.com/signerd/signerd/internal/version"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	e, hasCode := errors.AsType[*exitError](err)
	if hasCode && e.err == nil {
		return e.code // all was said
	}
	for _, problem := range problems.List(err) {
		fmt.Fprintf(os.Stderr, "signerd: %v\n", problem)
	}
	if hasCode {
		return e.code
	}
	return exitBug
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "signerd",
		Short: "A certificate authority for an etcd cluster, operated with ssh",
		Long: `signerd signs the certificates of an etcd cluster's clients and members. They ask
for them with nothing but ssh; see signerd(8) and signerd-protocol(7).`,
		Version:           version.String(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		RunE:              func(*cobra.Command, []string) error { return usagef("no command; signerd --help lists them") },
		DisableAutoGenTag: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; %s --help says more", err, cmd.CommandPath())
	})
	root.AddCommand(newServe(), newCheck(), newSync(), newStatus(), newCA(), newLedger())
	for _, cmd := range allCommands(root) {
		if args := cmd.Args; args != nil {
			cmd.Args = func(cmd *cobra.Command, words []string) error {
				if err := args(cmd, words); err != nil {
					return usagef("%v; %s --help says more", err, cmd.CommandPath())
				}
				return nil
			}
		}
	}
	return root
}

func allCommands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, child := range cmd.Commands() {
		all = append(all, allCommands(child)...)
	}
	return all
}

// configFlag adds --config to a command.
func configFlag(cmd *cobra.Command, normally string) *string {
	path := cmd.Flags().String("config", normally, "the configuration `FILE`")
	if err := cmd.MarkFlagFilename("config", "yaml"); err != nil {
		panic(err)
	}
	return path
}

// group makes a command that only has others below it.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a command; %s --help lists them", cmd.CommandPath(), cmd.CommandPath())
		},
	}
	cmd.AddCommand(children...)
	return cmd
}
