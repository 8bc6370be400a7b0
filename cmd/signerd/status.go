package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/report"
	"github.com/signerd/signerd/internal/table"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show everything here that can expire; exit 1 for a warning, 2 for worse",
		Args:  cobra.NoArgs,
	}
	here := hereFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		signs, member, err := here.load(now)
		if errors.Is(err, errNothing) {
			return exit(exitConfig, err)
		}
		findings := report.Broken("configuration", "", err)
		if signs != nil {
			findings = append(findings, report.Broken("start", "of signerd", signs.checkStart())...)
		}
		if signs != nil && signs.authority != nil {
			findings = append(findings, report.Signer(signs.authority, signs.config.Ledger, now)...)
		}
		if member != nil {
			findings = append(findings, report.Member(cmd.Context(), member, now)...)
		}
		r := report.New(now, findings)
		if *asJSON {
			err = printStatusJSON(cmd.OutOrStdout(), r)
		} else {
			err = printStatus(cmd.OutOrStdout(), r, onTerminal(cmd.OutOrStdout()))
		}
		if err != nil || r.State == report.OK {
			return err
		}
		return exit(int(r.State), nil)
	}
	return cmd
}

// here is what this machine is: a signer, a member, or both.
type here struct {
	cmd            *cobra.Command
	signer, member *string
}

// hereFlags adds --config and --member to a command.
func hereFlags(cmd *cobra.Command) here {
	h := here{cmd: cmd, signer: configFlag(cmd, config.DefaultPath)}
	h.member = cmd.Flags().String("member", config.DefaultMemberPath, "what signerd sync is configured with, in `FILE`")
	if err := cmd.MarkFlagFilename("member", "yaml"); err != nil {
		panic(err)
	}
	return h
}

// errNothing says that this machine is neither.
var errNothing = errors.New("this machine neither signs nor is a member")

// load reads what there is. A file that is named must be there, and one of the two: the
// error wraps errNothing if none is. What could be read comes with other errors too.
func (h here) load(now time.Time) (*setup, *config.Member, error) {
	var signs *setup
	var member *config.Member
	var signErr, memberErr error
	if h.wanted("config", *h.signer) {
		signs, signErr = load(*h.signer, now)
	}
	if h.wanted("member", *h.member) {
		member, memberErr = config.LoadMember(*h.member)
	}
	if err := multierror.Append(nil, signErr, memberErr).ErrorOrNil(); err != nil {
		return signs, member, err
	}
	if signs == nil && member == nil {
		return nil, nil, fmt.Errorf("%w: neither %s nor %s is there", errNothing, *h.signer, *h.member)
	}
	return signs, member, nil
}

// wanted says whether a file is named, or is there.
func (h here) wanted(flag, path string) bool {
	if h.cmd.Flags().Changed(flag) {
		return true
	}
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// onTerminal says whether somebody looks at what is written, who has not asked for
// no colours (https://no-color.org).
func onTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return term.IsTerminal(int(file.Fd()))
}

func printStatusJSON(out io.Writer, r report.Report) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// colours of states: green, yellow, red (ECMA-48, 8.3.117).
var colours = [...]string{report.OK: "32", report.Warning: "33", report.Critical: "31"}

// printStatus writes a table, the worst first, and below it what to do.
func printStatus(out io.Writer, r report.Report, coloured bool) error {
	rows := table.New(out, "STATE", "WHAT", "WHICH", "EXPIRES", "LEFT", "")
	for state := report.Critical; state >= report.OK; state-- {
		for _, f := range r.Findings {
			if f.State != state {
				continue
			}
			until, left := "-", "-"
			if f.NotAfter != nil {
				until, left = f.NotAfter.UTC().Format("2006-01-02 15:04")+"Z", remaining(f.NotAfter.Sub(r.Time))
			}
			rows.Row(paint(f.State, coloured), f.What, f.Which, until, left, f.Says)
		}
	}
	return rows.Flush()
}

// paint gives a state as wide as every other one.
func paint(s report.State, coloured bool) string {
	text := fmt.Sprintf("%-8s", s)
	if !coloured {
		return text
	}
	return "\x1b[" + colours[s] + "m" + text + "\x1b[0m"
}

// remaining gives a time that is left for people: days, or less than that in full.
func remaining(d time.Duration) string {
	switch {
	case d <= 0:
		return "expired"
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}
