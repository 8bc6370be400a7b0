// Package unit asks and tells systemd about units, through systemctl(1). What
// it changes survives a power cut once the call has returned.
package unit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/signerd/signerd/internal/durable"
)

// State is what systemd knows of a unit (org.freedesktop.systemd1(5)).
type State struct {
	Load    string // loaded, not-found, masked, bad-setting, ...
	Active  string // active, activating, failed, inactive, ...
	Sub     string // running, dead, auto-restart, ...
	Enabled bool   // it starts at boot
	Program string // the path of ExecStart's program, or empty
	Run     string // another one each time that it is started (its InvocationID)
	Retries int    // how often Restart= has started it since somebody did

	job bool // something is queued for it
}

// Known says whether there is such a unit.
func (s State) Known() bool { return s.Load == "loaded" }

// Up says whether the unit runs, or is on its way to.
func (s State) Up() bool {
	return s.Active == "active" || s.Active == "activating" || s.Active == "reloading" || s.job
}

// Running says whether systemd runs this machine (sd_booted(3)).
func Running() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// Get gives a unit's state. A unit that is not there has one too.
func Get(ctx context.Context, name string) (State, error) {
	out, err := systemctl(ctx, "show", "--property=LoadState,ActiveState,SubState,ExecStart,UnitFileState,Job,NRestarts,InvocationID", name)
	if err != nil {
		return State{}, err
	}
	return parse(out), nil
}

// parse reads the properties that systemctl show prints.
func parse(out string) State {
	var s State
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch key {
		case "LoadState":
			s.Load = value
		case "ActiveState":
			s.Active = value
		case "SubState":
			s.Sub = value
		case "UnitFileState":
			s.Enabled = value == "enabled"
		case "Job": // its number; it is left out if there is none
			s.job = value != "" && value != "0"
		case "InvocationID":
			s.Run = value
		case "NRestarts":
			s.Retries, _ = strconv.Atoi(value) // a number, or 0
		case "ExecStart": // { path=/usr/bin/etcd ; argv[]=...
			_, after, _ := strings.Cut(value, "path=")
			s.Program, _, _ = strings.Cut(after, " ;")
		}
	}
	return s
}

// Alive gives the state of a unit that runs, or is on its way to. The error says why
// one does not run any more, with its last words. With Restart= systemd tries again
// and again, so that auto-restart is an end.
func Alive(ctx context.Context, name string) (State, error) {
	s, err := Get(ctx, name)
	if err != nil || s.Up() && s.Sub != "auto-restart" {
		return s, err
	}
	return s, fmt.Errorf("%s does not run (%s, %s); its last words:\n%s",
		strings.TrimSuffix(name, ".service"), s.Active, s.Sub, Tail(ctx, name, 5))
}

// Start starts a unit without waiting until it is ready.
func Start(ctx context.Context, name string) error {
	_, err := systemctl(ctx, "start", "--no-block", name)
	return err
}

// Launch lets a unit start at boot and now, however often it has failed, without
// waiting until it is ready.
func Launch(ctx context.Context, name string) error {
	return errors.Join(Enable(ctx, name), ResetFailed(ctx, name), Start(ctx, name))
}

// Restart stops a unit and starts it again without waiting until it is ready.
func Restart(ctx context.Context, name string) error {
	_, err := systemctl(ctx, "restart", "--no-block", name)
	return err
}

// Stop stops a unit and waits for its end. A unit that is not there is stopped.
func Stop(ctx context.Context, name string) error {
	if s, err := Get(ctx, name); err != nil || !s.Known() {
		return err
	}
	_, err := systemctl(ctx, "stop", name)
	return err
}

// Enable lets a unit start at boot, and Disable ends that.
func Enable(ctx context.Context, name string) error { return install(ctx, "enable", name) }

// Disable keeps a unit from starting at boot.
func Disable(ctx context.Context, name string) error { return install(ctx, "disable", name) }

// directory is where systemctl makes the links of enabled units.
const directory = "/etc/systemd/system"

// install changes links, which systemctl leaves to the kernel to write.
func install(ctx context.Context, verb, name string) error {
	if _, err := systemctl(ctx, verb, name); err != nil {
		return err
	}
	wanted, err := filepath.Glob(directory + "/*.wants")
	if err != nil {
		return err
	}
	for _, dir := range append(wanted, directory) {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Reload lets systemd read its unit files again.
func Reload(ctx context.Context) error {
	_, err := systemctl(ctx, "daemon-reload")
	return err
}

// ResetFailed forgets that a unit failed, and how often it was started.
func ResetFailed(ctx context.Context, name string) error {
	_, err := systemctl(ctx, "reset-failed", name)
	return err
}

// Tail gives the last lines that a unit logged in this boot, for a person who is
// to see why it does not run: those that sound like it, or else any. It is empty
// if the journal has none.
func Tail(ctx context.Context, name string, lines int) string {
	args := []string{"--unit=" + name, "--boot", "--output=cat", "--no-pager", fmt.Sprintf("--lines=%d", lines)}
	for _, more := range []string{`--grep="level":"(error|fatal|panic)"|panic: |^[^{]*(error|fail|denied)`, "--quiet"} {
		out, err := run(ctx, "journalctl", append(args, more)...)
		if out = strings.TrimSpace(out); err == nil && out != "" {
			return out
		}
	}
	return ""
}

func systemctl(ctx context.Context, args ...string) (string, error) {
	return run(ctx, "systemctl", append([]string{"--no-ask-password", "--quiet"}, args...)...)
}

func run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to handle
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = errors.New(text)
		}
		return "", fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return stdout.String(), nil
}
