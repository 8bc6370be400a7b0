package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/signerd/signerd/integration/lab"
)

// plan is how much is measured.
type plan struct {
	rounds  int
	fresh   int // certificates a round
	shared  int
	stock   int // runs of the ssh command
	starts  int
	idle    int // connections
	ledgers []int
}

var (
	full  = plan{rounds: 9, fresh: 500, shared: 1200, stock: 40, starts: 20, idle: 2000, ledgers: []int{10, 10_000, 300_000}}
	quick = plan{rounds: 1, fresh: 50, shared: 50, stock: 2, starts: 2, idle: 20, ledgers: []int{10, 1000}}
)

// await starts a contestant and waits until it speaks, or accepts.
func (c *contestant) await() (*lab.Process, time.Duration, error) {
	begun := time.Now()
	process, err := c.start()
	if err != nil {
		return nil, 0, err
	}
	for time.Since(begun) < time.Minute {
		connection, err := net.Dial("tcp", c.address)
		if err == nil {
			if c.login != "" {
				_, err = io.ReadFull(connection, make([]byte, 4)) // SSH-
			}
			took := time.Since(begun)
			_ = connection.Close()
			return process, took, err
		}
		if process.Ended() {
			break
		}
		<-time.After(200 * time.Microsecond)
	}
	return nil, 0, fmt.Errorf("%s does not accept connections", c.name)
}

// up starts contestants; down ends them.
func up(contestants []*contestant) (processes map[*contestant]*lab.Process, down func(), err error) {
	processes = map[*contestant]*lab.Process{}
	down = func() {
		for _, p := range processes {
			p.Kill()
		}
	}
	for _, c := range contestants {
		process, _, err := c.await()
		if err != nil {
			down()
			return nil, nil, fmt.Errorf("%s: %w", c.name, err)
		}
		processes[c] = process
	}
	return processes, down, nil
}

// forget ends a contestant's past: its start and its memory are measured without
// one, but where that is the point.
func (c *contestant) forget() error {
	if c.past == "" {
		return nil
	}
	return os.RemoveAll(c.past)
}

// certificates measures each kind of connection in rounds; a round asks each
// server in turn.
func certificates(a *arena, contestants []*contestant, p plan) ([]certificate, error) {
	processes, down, err := up(contestants)
	if err != nil {
		return nil, err
	}
	defer down()
	var all []certificate
	for _, connection := range []string{"fresh", "shared"} {
		for _, kex := range both {
			taken := map[*contestant]*series{}
			for round := range p.rounds {
				for i := range contestants {
					c := contestants[(i+round)%len(contestants)]
					if !slices.Contains(c.kinds, kex) {
						continue
					}
					n := map[string]int{"fresh": p.fresh, "shared": p.shared}[connection]
					n = max(clients, int(float64(n)*c.share))
					if taken[c] == nil {
						taken[c] = &series{}
					}
					if err := taken[c].add(a, processes[c].PID(), load{c.dial, kex, connection == "shared", n}); err != nil {
						return nil, fmt.Errorf("%s, %s, %s: %w", c.name, connection, kex, err)
					}
				}
			}
			for _, c := range contestants {
				if s := taken[c]; s != nil {
					result := s.certificate(c.name, connection, kex)
					fmt.Fprintf(os.Stderr, "%-26s %-6s %-15s %8.0f us %8.0f/s %6.2fx\n", c.name, connection, kex,
						result.CPU, result.PerSecond, ratio(s.cpu, taken[contestants[0]].cpu))
					all = append(all, result)
				}
			}
		}
	}
	return all, nil
}

// stockSSH measures the ssh command, one certificate at a time.
func stockSSH(a *arena, contestants []*contestant, p plan) ([]stock, error) {
	config := a.memory.Path("stock_config")
	text := fmt.Sprintf("Host *\n    Port 2222\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    IdentitiesOnly yes\n    IdentityFile %s\n    BatchMode yes\n    LogLevel ERROR\n    KexAlgorithms curve25519-sha256\n",
		a.memory.Path("operator"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	_, down, err := up(contestants)
	if err != nil {
		return nil, err
	}
	defer down()
	took := map[*contestant][]float64{}
	for round := range p.stock + 1 {
		for _, c := range contestants {
			host, _, err := net.SplitHostPort(c.address)
			if err != nil {
				return nil, err
			}
			r := a.requests[len(a.requests)-1-round]
			cmd := exec.Command("ssh", "-F", config, c.login+"@"+host, r.name)
			cmd.Stdin = strings.NewReader(r.text)
			begun := time.Now()
			answer, err := cmd.Output()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if err := r.check(answer, a.roots); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 { // the first warms up
				took[c] = append(took[c], ms(time.Since(begun)))
			}
		}
	}
	var all []stock
	for _, c := range contestants {
		all = append(all, stock{c.name, median(took[c]), quantile(took[c], 0.99), took[c]})
	}
	return all, nil
}

// idling measures a server that was just started, then with clients that are
// logged in and do nothing.
func idling(contestants []*contestant, p plan) ([]idle, error) {
	var all []idle
	for _, c := range contestants {
		one, err := c.idling(p.idle)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (c *contestant) idling(connections int) (idle, error) {
	if err := c.forget(); err != nil {
		return idle{}, err
	}
	process, _, err := c.await()
	if err != nil {
		return idle{}, err
	}
	defer process.Kill()
	<-time.After(time.Second) // whatever it does after its start
	before, err := memory(process.PID())
	if err != nil {
		return idle{}, err
	}
	for range connections {
		one, err := c.dial(curve25519)
		if err != nil {
			return idle{}, err
		}
		defer one.Close() //nolint:errcheck // it did nothing
	}
	<-time.After(time.Second)
	after, err := memory(process.PID())
	return idle{c.name, mb(before), connections, float64(after-before) / 1024 / float64(connections)}, err
}

// starting measures how long a server takes to speak.
func starting(contestants []*contestant, p plan) ([]start, error) {
	took := map[*contestant][]float64{}
	for _, c := range contestants {
		if err := c.forget(); err != nil {
			return nil, err
		}
	}
	for range p.starts {
		for _, c := range contestants {
			process, one, err := c.await()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			process.Kill()
			took[c] = append(took[c], ms(one))
		}
	}
	var all []start
	for _, c := range contestants {
		all = append(all, start{c.name, median(took[c]), quantile(took[c], 0.99)})
	}
	return all, nil
}

// ledgers measures signerd with ledgers of many lengths.
func ledgers(a *arena, p plan) ([]ledgerCost, error) {
	type signerd struct {
		*contestant
		process       *lab.Process
		fresh, shared series
		ledgerCost
	}
	var all []*signerd
	for i, lines := range p.ledgers {
		l, err := a.lab(filepath.Join(a.memory.Dir, fmt.Sprintf("ledger-%d", lines)), fmt.Sprintf("127.81.%d", 10+i))
		if err != nil {
			return nil, err
		}
		bytes, err := fill(l.Path("ledger"), lines)
		if err != nil {
			return nil, err
		}
		s := &signerd{contestant: a.signerd("signerd", l), ledgerCost: ledgerCost{Lines: lines, Bytes: bytes}}
		var took []float64
		for range min(p.starts, 5) {
			if s.process != nil {
				s.process.Kill()
			}
			var one time.Duration
			if s.process, one, err = s.await(); err != nil {
				return nil, err
			}
			took = append(took, ms(one))
		}
		defer s.process.Kill()
		rss, err := memory(s.process.PID())
		if err != nil {
			return nil, err
		}
		s.Start, s.RSS = median(took), mb(rss)
		all = append(all, s)
	}
	for range p.rounds {
		for _, s := range all {
			if err := s.fresh.add(a, s.process.PID(), load{s.dial, curve25519, false, p.fresh}); err != nil {
				return nil, err
			}
			if err := s.shared.add(a, s.process.PID(), load{s.dial, curve25519, true, p.shared}); err != nil {
				return nil, err
			}
		}
	}
	var costs []ledgerCost
	for _, s := range all {
		s.Fresh, s.Shared = median(s.fresh.cpu), median(s.shared.cpu)
		costs = append(costs, s.ledgerCost)
	}
	return costs, nil
}
