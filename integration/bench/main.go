// Command bench is "make bench": signerd measured side by side with what one
// would put in its place, and with the least that the job costs. Servers run
// on one processor, clients on another; every certificate is verified.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// The processors of the servers and of the clients.
const (
	serverCPU = "1"
	clientCPU = "0"
)

func main() {
	memory := flag.String("memory", "/dev/shm", "a directory on a tmpfs")
	disk := flag.String("disk", "build", "a directory on a disk")
	out := flag.String("out", "", "file of the results; the page and the plot are written beside it")
	few := flag.Bool("quick", false, "a few of each, to see that it works")
	look := flag.String("look", "", "only what certificates cost on these servers, by name, separated by semicolons; nothing is written")
	flag.Parse()
	if err := pin(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: running on processor %s: %v\n", clientCPU, err)
		os.Exit(1)
	}
	p := full
	if *few {
		p = quick
	}
	if *out == "" && *look == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*memory, *disk, *out, *look, p); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(memory, disk, out, look string, p plan) error {
	a, err := newArena(memory, disk)
	defer a.close()
	if err != nil {
		return err
	}
	all, err := a.contestants()
	if err != nil {
		return err
	}
	authorities, err := a.authorities()
	if err != nil {
		return err
	}
	all = append(all, authorities...)
	if look != "" {
		_, err := certificates(a, named(all, strings.Split(look, ";")...), p)
		return err
	}
	r, err := measure(a, all, p)
	if err != nil {
		return err
	}
	if err := r.write(out); err != nil {
		return err
	}
	for _, b := range r.Bars {
		if verdict := b.Verdict(); verdict != "must" && verdict != "aim" {
			fmt.Fprintf(os.Stderr, "%s: %s, must %s: %s\n", b.What, b.Limit(b.Got), b.Limit(b.Must), verdict)
		}
	}
	return r.writePage(out)
}

// measure takes all measurements.
func measure(a *arena, all []*contestant, p plan) (*results, error) {
	r := &results{Machine: thisMachine(p)}
	for _, part := range []struct {
		what string
		take func() error
	}{
		{"certificates", func() (err error) { r.Certificates, err = certificates(a, all, p); return }},
		{"the ssh command", func() (err error) {
			r.Stock, err = stockSSH(a, named(all, bare, gliderlabs, onMemory, onDisk, script), p)
			return
		}},
		{"idle connections", func() (err error) { r.Idle, err = idling(named(all, bare, gliderlabs, onMemory), p); return }},
		{"starts", func() (err error) {
			r.Start, err = starting(named(all, bare, gliderlabs, onMemory, onDisk, script, stepCA, cfssl), p)
			return
		}},
		{"ledgers", func() (err error) { r.Ledgers, err = ledgers(a, p); return }},
	} {
		fmt.Fprintf(os.Stderr, "%s ...\n", part.what)
		if err := part.take(); err != nil {
			return nil, fmt.Errorf("%s: %w", part.what, err)
		}
	}
	r.Bars = r.bars()
	return r, nil
}

func named(contestants []*contestant, names ...string) []*contestant {
	return slices.DeleteFunc(slices.Clone(contestants), func(c *contestant) bool { return !slices.Contains(names, c.name) })
}

// pin starts this program anew on the clients' processor, with all its threads
// (taskset(1)), unless it runs there.
func pin() error {
	var now unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil {
		return err
	}
	if now.Count() == 1 {
		return nil
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return unix.Exec(taskset, append([]string{"taskset", "--cpu-list", clientCPU, self}, os.Args[1:]...), os.Environ())
}

func thisMachine(p plan) machine {
	m := machine{Date: time.Now().UTC().Format(time.DateOnly), Go: runtime.Version(), Rounds: p.rounds}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			m.CPU = fmt.Sprintf("%d x %s", len(cpus), cpus[0].ModelName)
		}
	}
	if out, err := exec.Command("git", "-C", benchDir(), "describe", "--always", "--dirty").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	return m
}
