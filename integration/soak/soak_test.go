// Package soak lets a cluster live through whatever comes, and then looks whether every
// promise was kept. Certificates live for two minutes.
package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/load"
)

var (
	duration = flag.Duration("soak.for", 0, "how long faults happen; 0: no soak")
	seed     = flag.Uint64("soak.seed", 0, "which faults happen, in which order and for how long; 0: others each time")
)

const tags = "grpcnotrace crashpoints impatient shortlives"

// life is a cluster of three, nodes that renew, and what became of them.
type life struct {
	*fleet.World
	join     []string // the command line of a member's join
	operator *node    // asks for what only a person does
	nodes    []*node

	mu     sync.Mutex
	broken []broken

	// What watch saw, for when it has ended.
	admitted int               // how often a member took what a node has
	shown    map[string]string // the serials of certificates that the three members showed, and at which port
}

func (l *life) report(b broken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = append(l.broken, b)
}

// begin boots the cluster and lets the nodes in.
func begin(t *testing.T, w *fleet.World) *life {
	t.Helper()
	w.Cluster(t)
	l := &life{World: w, join: w.Join(t)}
	known, dir := w.KnownHosts(t), t.TempDir()
	var lines strings.Builder
	for _, name := range []string{"operator", "kubemaster-01", "kubemaster-02", "kubemaster-03", "kubemaster-04", "kubemaster-05", "kubemaster-writes"} {
		n, err := newNode(name, w.Bed.Address(11), known, dir)
		if err != nil {
			t.Fatal(err)
		}
		permit := "get-*,kubemaster-*,release " + name
		if name == "operator" {
			l.operator, permit = n, "get-*,remove etcd-*,rotate *"
		} else {
			n.steady, n.lazy = name == "kubemaster-writes", len(l.nodes) < 2
			l.nodes = append(l.nodes, n)
		}
		line, err := n.line(permit)
		if err != nil {
			t.Fatal(err)
		}
		lines.WriteString(line)
	}
	fleet.Write(t, w.Path("nodes"), lines.String())
	if err := w.Bed.Push("h1", w.Path("nodes"), "/root/nodes"); err != nil {
		t.Fatal(err)
	}
	// All nodes are one machine here, and ask every few seconds.
	w.On(t, "h1", "sh", "-c", "cat /root/nodes >> /etc/signerd/authorized_keys && printf 'metrics: 127.0.0.1:9289\\nlimits:\\n  per_name_per_hour: 0\\n  exempt: ["+w.Bed.Address(1)+"/32]\\n' >> /etc/signerd/signerd.yaml && signerd check && systemctl restart signerd && sync")
	return l
}

// live lets the cluster live for a while, with faults or without, and gives the promises
// that were not kept.
func (l *life) live(t *testing.T, seed uint64, until time.Time, befall func(*testing.T, *rand.Rand, time.Time) map[string]int) []broken {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var nodes, rest sync.WaitGroup
	for i, n := range l.nodes {
		nodes.Go(func() { n.live(ctx, rand.New(rand.NewPCG(seed, uint64(i)+1))) })
	}
	fleet.Eventually(t, time.Minute, "all nodes have a certificate", func() error {
		for _, n := range l.nodes {
			n.mu.Lock()
			none := n.leaf == nil
			n.mu.Unlock()
			if none {
				return errors.New(n.name + " has none")
			}
		}
		return nil
	})
	steady := l.nodes[len(l.nodes)-1]
	writer, err := load.Start(l.Endpoints(), steady.config(), 50)
	if err != nil {
		t.Fatal(err)
	}
	watching, stopWatching := context.WithCancel(ctx)
	rest.Go(func() { l.watch(watching) })
	var sizes []size
	rest.Go(func() { sizes = l.sizes(watching) })
	rotating, stopRotating := context.WithCancel(ctx)
	rotations := 0
	rest.Go(func() { rotations = l.rotates(rotating, rand.New(rand.NewPCG(seed, 100)), until) })

	count := befall(t, rand.New(rand.NewPCG(seed, 0)), until)
	stopRotating() // one that has begun is finished
	finished := make(chan struct{})
	go func() { defer close(finished); rest.Wait() }()
	<-time.After(time.Second)
	stopWatching()
	select {
	case <-finished:
	case <-time.After(30 * time.Minute):
		t.Fatal("a rotation does not end")
	}
	l.Well(t, 3*time.Minute)
	stop()
	nodes.Wait()
	report, err := writer.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v; %d rotations; %s", count, rotations, report)
	if report.Missing > 0 {
		l.report(broken{writes, report.String()})
	}
	denied := 0
	for _, n := range l.nodes {
		denied += n.denied
	}
	if len(sizes) < 5 || l.admitted < 5 || len(l.shown) < 3 {
		for _, b := range l.broken {
			t.Logf("%s: %s", b.promise, b.how)
		}
		t.Fatalf("signerd told its size %d times, members admitted nodes %d times and showed %d certificates: nothing was seen", len(sizes), l.admitted, len(l.shown))
	}
	t.Logf("%d times somebody else was denied a name; %+v at the beginning, %+v at the end", denied, sizes[0], sizes[len(sizes)-1])
	return slices.Concat(l.broken, grown(sizes), l.check(t))
}

// rotates replaces the CA again and again until a time, now and then there and back. One
// that has begun is finished.
func (l *life) rotates(ctx context.Context, random *rand.Rand, until time.Time) (done int) {
	for time.Now().Before(until) {
		steps := []string{"prepare", "activate", "retire", "finish"}
		if random.IntN(4) == 0 {
			steps = []string{"prepare", "activate", "rollback", "abort"}
		}
		for _, step := range steps {
			if err := l.rotate(step, until); err != nil {
				l.report(broken{active, fmt.Sprintf("rotate %s: %v", step, err)})
				return done
			}
		}
		done++
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(5+random.IntN(20)) * time.Second):
		}
	}
	return done
}

// afterFaults is for how long a step may take once no faults happen any more: three
// restarts, one after the other, and a client that renews late.
const afterFaults = 5 * time.Minute

// rotate asks for a step until it is done. What was made while the signer's clock was ahead
// is in the way for long: a CA is given up for another one, and the name of a certificate is
// released, as the refusal says.
func (l *life) rotate(step string, until time.Time) error {
	began := time.Now()
	return fleet.Retry(time.Until(until.Add(afterFaults)), time.Second, func() error {
		_, err := l.operator.ask("", "rotate", step)
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			return err
		}
		says := string(exit.Stderr)
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(says))
		if time.Since(began) > 2*time.Minute {
			for _, n := range l.nodes {
				if strings.Contains(says, n.name+" has a certificate by") {
					n.letGo.Store(true)
				}
			}
		}
		switch code := exit.ExitCode(); {
		case code == 75 && strings.Contains(says, "is not valid before"):
			return errors.Join(l.rotate("abort", until), l.rotate("prepare", until), err)
		case code != 75 && code != 255:
			l.report(broken{active, fmt.Sprintf("rotate %s: %v\n%s", step, err, l.Bed.Logs("h1", "-n", "3", "-u", "signerd", "-g", fmt.Sprintf(`"status":%d`, code)))})
		}
		return err
	})
}

// A cluster lives through power cuts, partitions, lost packets, frozen hosts and
// processes, clocks that jump and full disks, while nodes renew, members join and leave,
// and the CA is replaced again and again.
func TestSoak(t *testing.T) {
	if *duration == 0 {
		t.Skip("make soak")
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again: make soak SOAK='-soak.for=%s -soak.seed=%d'", *duration, *seed)
	l := begin(t, fleet.Build(t, tags))
	for _, b := range l.live(t, *seed, time.Now().Add(*duration), l.befall) {
		t.Errorf("%s: %s", b.promise, b.how)
	}
}
