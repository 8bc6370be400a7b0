package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/signerd/signerd/bootstrap"
)

// Every command, option and exit code is on the program's page.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../doc/first-boot.8.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	root := newRoot("")
	for _, cmd := range root.Commands() {
		if !strings.Contains(page, "**"+cmd.Name()+"**") {
			t.Errorf("the page lacks %s", cmd.Name())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(page, "- `--"+f.Name) || !strings.Contains(page, "[--"+f.Name) && !strings.Contains(page, " --"+f.Name+" ") {
				t.Errorf("the page lacks --%s of %s", f.Name, cmd.Name())
			}
		})
	}
	for _, code := range []int{exitUsage, exitUnreachable, exitFailed, exitExists, exitRetry, exitDenied, exitPreflight} {
		if !strings.Contains(page, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("the page lacks exit code %d", code)
		}
	}
}

func TestExitCodes(t *testing.T) {
	preflight := func(problems ...error) error { return multierror.Append(bootstrap.ErrPreflight, problems...) }
	for _, test := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{fmt.Errorf("%w: no", bootstrap.ErrUsage), 64},
		{preflight(errors.New("no root")), 78},
		{preflight(errors.New("no root"), fmt.Errorf("%w: nobody", bootstrap.ErrUnreachable)), 69},
		{preflight(fmt.Errorf("%w: not you", bootstrap.ErrDenied)), 77},
		{fmt.Errorf("a step: %w; %w", errors.New("broke"), bootstrap.ErrUndone), 75},
		{fmt.Errorf("a step: %w; %w", bootstrap.ErrDenied, bootstrap.ErrUndone), 77},
		{bootstrap.ErrDone, 73},
		{errors.New("a step broke"), 70},
	} {
		if code := exitCode(test.err); code != test.code {
			t.Errorf("%v ends with %d, want %d", test.err, code, test.code)
		}
	}
}

func TestComplain(t *testing.T) {
	list := multierror.Append(bootstrap.ErrPreflight, errors.New("one thing"), errors.New("another"))
	if got, want := complain(list), "first-boot: this stands in the way; nothing was changed:\n  - one thing\n  - another\n"; got != want {
		t.Errorf("a list is %q, want %q", got, want)
	}
	// A list within one of them, as the lines of authorized_keys are.
	lines := multierror.Append(nil, errors.New("keys:1: bad"), errors.New("keys:2: worse"))
	list = multierror.Append(bootstrap.ErrPreflight, errors.New("one thing"), fmt.Errorf("the keys: %w; give others", lines))
	if got, want := complain(list), "first-boot: this stands in the way; nothing was changed:\n  - one thing\n  - the keys: keys:1: bad; give others\n  - the keys: keys:2: worse; give others\n"; got != want {
		t.Errorf("a list in a list is %q, want %q", got, want)
	}
	// What was said before a list is lost on nobody.
	both := errors.Join(fmt.Errorf("%w: another one was begun", bootstrap.ErrPreflight), errors.New("the lock stays"))
	if got := complain(both); !strings.Contains(got, "another one was begun") || !strings.Contains(got, "the lock stays") {
		t.Errorf("two errors are %q", got)
	}
	if got, want := complain(errors.New("a step broke")), "first-boot: a step broke\n"; got != want {
		t.Errorf("an error is %q, want %q", got, want)
	}
}

// What a person answers is a line; who goes away has not answered.
func TestHuman(t *testing.T) {
	ended, end := context.WithCancelCause(t.Context())
	end(errors.New("interrupt"))
	waits, _ := io.Pipe()
	for what, test := range map[string]struct {
		ctx    context.Context
		in     io.Reader
		answer string
		says   string // none: there is an answer
	}{
		"a line":    {t.Context(), strings.NewReader(" age1x \n"), "age1x", ""},
		"Enter":     {t.Context(), strings.NewReader("\n"), "", ""},
		"hung up":   {t.Context(), strings.NewReader("age1"), "age1", "EOF"},
		"Control-C": {ended, waits, "", "interrupt"},
	} {
		var out bytes.Buffer
		h := &human{struct {
			io.Reader
			io.Writer
		}{test.in, &out}}
		answer, err := h.recipient(test.ctx)
		if answer != test.answer || (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %q, %v", what, answer, err)
		}
		if !strings.Contains(out.String(), "Who can open the backup") {
			t.Errorf("the question is %q", out.String())
		}
	}
	if got := withoutSecrets([]string{"init", "--backup-recipient=AGE-SECRET-KEY-1ABC", "--name=etcd-1"}); !slices.Equal(got, []string{"init", "(a private key)", "--name=etcd-1"}) {
		t.Errorf("the log has %q", got)
	}
}

func TestSetupDir(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "first-boot")
	if got := setupDir(program); got != "" {
		t.Errorf("without the script %q is a setup folder", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "first-boot.sh"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := setupDir(program); got != dir {
		t.Errorf("the setup folder is %q, want %q", got, dir)
	}
	if got := setupDir(packageDir + "/first-boot"); got != "" {
		t.Error("what the package keeps is a setup folder")
	}
}

// What init prints at the end can be typed on the next machine.
func TestSummary(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out, log: zerolog.Nop()}
	p.summary(&bootstrap.Summary{
		Command: "init", Cluster: "prod-a", Name: "etcd-1", Address: "10.0.0.11", Finished: time.Now(),
		CA: []string{strings.Repeat("ab", 32)}, Signer: "10.0.0.11:22", SignerKey: "SHA256:" + strings.Repeat("A", 43),
	})
	_, after, _ := strings.Cut(out.String(), "first-boot.sh ")
	line, _, _ := strings.Cut(strings.ReplaceAll(after, " \\\n", " "), "\n")
	root := newRoot("")
	var typed bootstrap.JoinOptions
	for _, cmd := range root.Commands() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			flags := cmd.Flags()
			var err error
			if typed.Signer, err = flags.GetString("signer-ip"); err != nil {
				return err
			}
			typed.CAFingerprints, err = flags.GetStringSlice("ca-fingerprint")
			return err
		}
	}
	root.SetArgs(strings.Fields(line))
	if err := root.Execute(); err != nil || typed.Signer != "10.0.0.11" || len(typed.CAFingerprints) != 1 {
		t.Errorf("%q is understood as %+v, %v", line, typed, err)
	}
	if !strings.Contains(out.String(), "/etc/etcd/pki/ca.key") {
		t.Errorf("init does not say which key to save:\n%s", out.String())
	}
}

// On a terminal a step takes the place of its own beginning; elsewhere each has
// one line.
func TestProgress(t *testing.T) {
	for terminal, want := range map[bool]string{
		false: "[ 1/2] make the CA                                          ok 1.5s  here\n",
		true:  "\r\033[K[ 1/2] make the CA                                          ...\r\033[K[ 1/2] make the CA                                          ok 1.5s  here\n",
	} {
		var out bytes.Buffer
		p := &progress{out: &out, terminal: terminal, log: zerolog.Nop()}
		e := bootstrap.Event{Number: 1, Of: 2, Title: "make the CA", State: bootstrap.Begun}
		p.observe(e)
		e.State, e.Took, e.Detail = bootstrap.Done, 1500*time.Millisecond, "here"
		p.observe(e)
		if out.String() != want {
			t.Errorf("on a terminal %v: %q, want %q", terminal, out.String(), want)
		}
	}
}
