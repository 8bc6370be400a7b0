package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/table"
	"github.com/signerd/signerd/signer"
)

func newLedger() *cobra.Command {
	return group("ledger", "Read the ledger, whether the daemon runs or not", newLedgerVerify(), newLedgerShow())
}

func newLedgerVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check every line of the ledger and its place in the chain",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return exit(exitConfig, err)
		}
		summary, err := signer.Verify(c.Ledger, nil)
		if err != nil {
			return exitForState(err)
		}
		out := cmd.OutOrStdout()
		if summary.Torn > 0 {
			if _, err := fmt.Fprintf(out, "note: %d bytes of an unfinished batch are at the end; nobody was answered from it\n", summary.Torn); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(out, "ok: lines %d to %d in %d files; the head is %s\n", summary.First, summary.Head.Seq, summary.Files, summary.Head.Hash)
		return err
	}
	return cmd
}

func newLedgerShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print what the ledger records, after verifying it",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	name := cmd.Flags().String("name", "", "only lines about this `NAME`")
	asJSON := cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return exit(exitConfig, err)
		}
		var entries []signer.Entry
		if _, err := signer.Verify(c.Ledger, func(e signer.Entry) {
			if (e.Event == signer.Rotated || e.Event == signer.Fetched) && *name == "" || e.Name != "" && (*name == "" || e.Name == *name) {
				entries = append(entries, e)
			}
		}); err != nil {
			return exitForState(err)
		}
		if *asJSON {
			return printJSON(cmd, entries)
		}
		return printTable(cmd, entries)
	}
	return cmd
}

func printJSON(cmd *cobra.Command, entries []signer.Entry) error {
	encoder := json.NewEncoder(cmd.OutOrStdout())
	for _, e := range entries {
		if err := encoder.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func printTable(cmd *cobra.Command, entries []signer.Entry) error {
	rows := table.New(cmd.OutOrStdout(), "TIME", "EVENT", "NAME", "VALID UNTIL", "SERIAL", "ASKED BY", "FROM")
	for _, e := range entries {
		until := "-"
		if !e.NotAfter.IsZero() {
			until = e.NotAfter.Format(time.RFC3339)
		}
		rows.Row(e.Time.Format(time.RFC3339), string(e.Event), cmp.Or(e.Name, string(e.Step), e.Generation), until, cmp.Or(e.Serial, "-"), cmp.Or(e.SSHKey, "-"), cmp.Or(e.Source, "-"))
	}
	return rows.Flush()
}
