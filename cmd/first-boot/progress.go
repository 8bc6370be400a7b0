package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/signerd/signerd/bootstrap"
)

// logPath keeps everything that a run did, after the terminal is gone.
const logPath = "/var/log/signerd-first-boot.log"

// progress shows what happens: a line for each step on a terminal or in a
// cloud's console, and everything in the log.
type progress struct {
	out      io.Writer
	terminal bool
	log      zerolog.Logger
}

func newProgress(cmd *cobra.Command, dryRun bool) (*progress, func(), error) {
	p := &progress{out: cmd.OutOrStdout(), terminal: isTerminal(os.Stdout), log: zerolog.Nop()}
	if dryRun {
		return p, func() {}, nil
	}
	file, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	p.log = zerolog.New(file).With().Timestamp().Logger()
	p.log.Info().Str("command", cmd.Name()).Str("version", cmd.Root().Version).Strs("arguments", withoutSecrets(os.Args[1:])).Msg("began")
	return p, func() { _ = file.Sync(); _ = file.Close() }, nil
}

func isTerminal(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }

// withoutSecrets leaves private keys out that somebody gave for public ones.
func withoutSecrets(args []string) []string {
	kept := slices.Clone(args)
	for i, arg := range kept {
		if strings.Contains(arg, "SECRET-KEY-") || strings.Contains(arg, "PRIVATE KEY") {
			kept[i] = "(a private key)"
		}
	}
	return kept
}

func (p *progress) observe(e bootstrap.Event) {
	p.record(e)
	head := fmt.Sprintf("[%2d/%d] %-52s", e.Number, e.Of, e.Title)
	if e.Number == 0 {
		head = fmt.Sprintf("        %-52s", e.Title)
	}
	e.Detail = printable(e.Detail)
	switch e.State {
	case bootstrap.Begun:
		p.passing(head + " ...")
	case bootstrap.Waiting:
		p.passing(head + " ... " + e.Detail)
	case bootstrap.Done:
		p.line(head + " ok" + took(e.Took) + note(e.Detail))
	case bootstrap.Before:
		p.line(head + " done before")
	case bootstrap.Failed:
		p.line(head + " FAILED" + took(e.Took))
	case bootstrap.Planned:
		p.line(head)
	case bootstrap.Warning:
		p.line("warning: " + e.Detail)
	}
}

func (p *progress) record(e bootstrap.Event) {
	event := p.log.Info()
	switch e.State {
	case bootstrap.Failed:
		event = p.log.Error().Err(e.Err)
	case bootstrap.Warning:
		event = p.log.Warn()
	}
	if e.Title != "" {
		event = event.Str("step", e.Title)
	}
	if e.Took > 0 {
		event = event.Int64("ms", e.Took.Milliseconds())
	}
	if e.Detail != "" {
		event = event.Str("detail", e.Detail)
	}
	event.Msg(string(e.State))
}

// printable takes out what could move the terminal's cursor: some of it comes
// from the signer.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return '?'
	}, text)
}

// passing is a line that the next one takes the place of, where it can.
func (p *progress) passing(text string) {
	if p.terminal {
		p.print("\r\033[K" + clip(text, 120))
	}
}

func (p *progress) line(text string) {
	if p.terminal {
		text = "\r\033[K" + text
	}
	p.print(text + "\n")
}

// print goes on where nobody reads: the log has it.
func (p *progress) print(text string) { _, _ = io.WriteString(p.out, text) }

func clip(text string, most int) string {
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > most {
		text = text[:most]
	}
	return text
}

func took(d time.Duration) string {
	if d < 50*time.Millisecond {
		return ""
	}
	return fmt.Sprintf(" %.1fs", d.Seconds())
}

func note(detail string) string {
	if detail == "" {
		return ""
	}
	return "  " + detail
}

func (p *progress) failed(err error) {
	if err != nil {
		p.log.Error().Err(err).Msg("ended")
	}
}

func (p *progress) cleaned(dir string, gone bool) {
	if gone {
		p.line(dir + " has removed itself.")
		return
	}
	p.line(dir + " stays, with what was not shipped in it; first-boot is gone.")
}

// summary says what a person needs to know, and to keep.
func (p *progress) summary(s *bootstrap.Summary) {
	p.log.Info().Str("name", s.Name).Str("cluster", s.Cluster).Strs("ca", s.CA).Str("signer_key", s.SignerKey).Msg("finished")
	text := fmt.Sprintf("\n%s is a member of the cluster %s, at %s.\n\n", s.Name, s.Cluster, s.Address)
	for _, ca := range s.CA {
		text += fmt.Sprintf("  CA fingerprint        %s\n", ca)
	}
	text += fmt.Sprintf("  signer                signer@%s\n  signer's host key     %s\n\n", s.Signer, s.SignerKey)
	if s.Command == "init" {
		text += fmt.Sprintf(`Every other machine joins with:

  %s

%s
The CA's key, a secret, is /etc/etcd/pki/ca.key (leads to /var/lib/signerd/authority/active.key).

`, joinLine(s), backupAdvice(s))
	}
	p.print(text)
}

// backupAdvice says what is to be done so that the CA outlives this machine.
func backupAdvice(s *bootstrap.Summary) string {
	if s.Backup != "" {
		return "Copy the backup of the signer to another machine now:\n\n  " + s.Backup + "\n"
	}
	return "Back the signer up now, for a key that is not on this machine (age1..., or an SSH public key):\n\n" +
		"  signerd ca backup --recipient 'RECIPIENT' --output " + bootstrap.BackupPath(s.Cluster) + "\n"
}

// joinLine is what a person types on the next machine.
func joinLine(s *bootstrap.Summary) string {
	words := []string{"/root/setup/first-boot.sh join", "--signer-ip=" + strings.TrimSuffix(s.Signer, ":22"), "--signer-fingerprint=" + s.SignerKey}
	for _, ca := range s.CA {
		words = append(words, "--ca-fingerprint="+ca)
	}
	return strings.Join(words, " \\\n    ")
}
