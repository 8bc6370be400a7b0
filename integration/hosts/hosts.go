// Package hosts runs real Debian hosts with systemd on this machine, for tests;
// the script beside it says how. It needs root and the packages that the
// Makefile lists.
package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/signerd/signerd/integration/lab"
)

// Programs are what the script needs to be there.
var Programs = []string{"mmdebstrap", "systemd-nspawn", "nft", "ip", "nsenter", "mkfs.ext4", "perl"}

// Bed is a set of hosts on one network of their own, a /24 on which this machine
// is .1.
type Bed struct {
	Network string // its first three numbers
	base    string
	env     []string
}

// script is the program that does all.
func script() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "hosts")
}

// New makes a bed. n tells it from others that run at the same time.
func New(n int) (*Bed, error) { return On(fmt.Sprintf("sd%d", n), fmt.Sprintf("10.77.%d", n)) }

// On makes a bed of a name of up to 6 letters on a network of one's own choice,
// the first three numbers of a /24.
func On(name, network string) (*Bed, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "signerd", "hosts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	skew := filepath.Join(dir, "skew")
	if err := lab.Build(".", skew, "./hosts/skew"); err != nil {
		return nil, err
	}
	b := &Bed{Network: network}
	b.env = append(os.Environ(), "BED_DIR="+dir, "BED_LAB="+name, "BED_NET="+network, "BED_SKEW="+skew)
	base, err := b.hosts("base")
	if err != nil {
		return nil, err
	}
	b.base = strings.TrimSpace(base)
	_, err = b.hosts("clean") // what an interrupted run left
	return b, err
}

// Close ends all hosts and their network.
func (b *Bed) Close() error {
	_, err := b.hosts("clean")
	return err
}

// Base gives the directory that all hosts begin with.
func (b *Bed) Base() string { return b.base }

// Address gives the address of a host by its last number.
func (b *Bed) Address(n int) string { return fmt.Sprintf("%s.%d", b.Network, n) }

// New makes a host with a disk like image, or an empty one, and boots it.
func (b *Bed) New(name string, n int, image string) error {
	_, err := b.run(b.command("BED_IMAGE="+image, "up", name, b.Address(n)))
	return err
}

// Boot boots a host again that is off.
func (b *Bed) Boot(name string) error { return b.do("up", name) }

// Down shuts a host down in order.
func (b *Bed) Down(name string) error { return b.do("down", name) }

// PowerOff pulls the plug: what was not synced is lost.
func (b *Bed) PowerOff(name string) error { return b.do("poweroff", name) }

// Remove throws a host away.
func (b *Bed) Remove(name string) error { return b.do("rm", name) }

// Cut drops all packets between two hosts, or a host and "all" or "outside".
func (b *Bed) Cut(one, other string) error { return b.do("cut", one, other) }

// Heal undoes Cut.
func (b *Bed) Heal(one, other string) error { return b.do("heal", one, other) }

// Lose drops a share of the packets between two hosts, in percent; 0 ends it.
func (b *Bed) Lose(one, other string, percent int) error {
	return b.do("loss", one, other, fmt.Sprint(percent))
}

// Pause freezes every process of a host, and Resume thaws them.
func (b *Bed) Pause(name string) error { return b.do("pause", name) }

// Resume undoes Pause.
func (b *Bed) Resume(name string) error { return b.do("resume", name) }

// Skew shifts a host's wall clock, as its processes read it.
func (b *Bed) Skew(name string, by time.Duration) error {
	return b.do("skew", name, fmt.Sprint(int(by.Seconds())))
}

// Image shuts a host down and keeps its disk in the file, for New.
func (b *Bed) Image(name, file string) error {
	return errors.Join(b.Down(name), b.do("image", name, file))
}

// Push copies a file into a host.
func (b *Bed) Push(name, source, target string) error { return b.do("push", name, source, target) }

// Exec runs a program on a host, as a unit of its systemd, and gives its stdout.
// The error has its stderr, and wraps *exec.ExitError.
func (b *Bed) Exec(name string, args ...string) (string, error) {
	return b.run(b.Command(name, args...))
}

// Command is Exec for who wants more of it.
func (b *Bed) Command(name string, args ...string) *exec.Cmd {
	return b.command("", append([]string{"exec", name}, args...)...)
}

// Enter runs a program in a host's namespaces and gives its output, without a
// unit: fast, for a look.
func (b *Bed) Enter(name string, args ...string) (string, error) {
	return b.run(b.Within(name, args...))
}

// Within is Enter for who wants more of it.
func (b *Bed) Within(name string, args ...string) *exec.Cmd {
	return b.command("", append([]string{"enter", name}, args...)...)
}

// Logs gives the journal of a host, running or not.
func (b *Bed) Logs(name string, args ...string) string {
	out, err := b.hosts(append([]string{"logs", name}, args...)...)
	if err != nil {
		return err.Error()
	}
	return out
}

func (b *Bed) do(args ...string) error {
	_, err := b.hosts(args...)
	return err
}

func (b *Bed) hosts(args ...string) (string, error) { return b.run(b.command("", args...)) }

func (b *Bed) command(env string, args ...string) *exec.Cmd {
	cmd := exec.Command(script(), args...)
	cmd.Env = slices.Concat(b.env, []string{env})
	return cmd
}

func (b *Bed) run(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
