package soak

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
)

// fault is something that befalls the cluster and passes. One at a time, so that two of
// three members are always well.
type fault struct {
	name string
	do   func(l *life, random *rand.Rand) error
}

var faults = []fault{
	{"power cut", func(l *life, random *rand.Rand) error {
		return l.powerCut(one(random), random)
	}},
	{"partition", func(l *life, random *rand.Rand) error {
		a, b := two(random)
		return errors.Join(l.Bed.Cut(a, b), wait(random, 3, 15), l.Bed.Heal(a, b))
	}},
	{"alone", func(l *life, random *rand.Rand) error {
		host := one(random)
		return errors.Join(l.Bed.Cut(host, "all"), wait(random, 3, 15), l.Bed.Heal(host, "all"))
	}},
	{"packet loss", func(l *life, random *rand.Rand) error {
		a, b := two(random)
		return errors.Join(l.Bed.Lose(a, b, 10+random.IntN(30)), wait(random, 5, 20), l.Bed.Lose(a, b, 0))
	}},
	{"frozen host", func(l *life, random *rand.Rand) error {
		host := one(random)
		return errors.Join(l.Bed.Pause(host), wait(random, 1, 15), l.Bed.Resume(host))
	}},
	{"frozen process", func(l *life, random *rand.Rand) error {
		host, program := one(random), []string{"etcd", "signerd"}[random.IntN(2)]
		if program == "signerd" {
			host = "h1"
		}
		return errors.Join(l.run(host, "pkill", "-STOP", "-x", program), wait(random, 1, 10), l.run(host, "pkill", "-CONT", "-x", program))
	}},
	{"clock jump", func(l *life, random *rand.Rand) error {
		host, by := one(random), time.Duration(1-2*random.IntN(2))*time.Hour
		return errors.Join(l.Bed.Skew(host, by), wait(random, 3, 15), l.Bed.Skew(host, 0))
	}},
	{"full disk", func(l *life, random *rand.Rand) error {
		host := one(random)
		err := l.run(host, "sh", "-c", "fallocate -l $(df --output=avail -B1 /var | tail -n 1) /var/fill; dd if=/dev/zero of=/var/fill2 bs=4k 2>/dev/null; df --output=avail /var | tail -n 1 | grep -qx ' *0'")
		return errors.Join(err, wait(random, 3, 15), l.run(host, "rm", "/var/fill", "/var/fill2"))
	}},
	{"join and removal", func(l *life, _ *rand.Rand) error { return l.joinAndRemove() }},
}

// powerCut cuts a host's power for a while.
func (l *life) powerCut(host string, random *rand.Rand) error {
	return errors.Join(l.Bed.PowerOff(host), wait(random, 1, 10), l.Bed.Boot(host))
}

func one(random *rand.Rand) string { return fleet.Names[random.IntN(len(fleet.Names))] }

func two(random *rand.Rand) (a, b string) {
	i := random.IntN(len(fleet.Names))
	return fleet.Names[i], fleet.Names[(i+1+random.IntN(2))%len(fleet.Names)]
}

// wait lets some seconds pass.
func wait(random *rand.Rand, least, most int) error {
	<-time.After(time.Duration(least*1000+random.IntN((most-least)*1000)) * time.Millisecond)
	return nil
}

func (l *life) run(host string, args ...string) error {
	_, err := l.Bed.Exec(host, args...)
	return err
}

// joinAndRemove lets a fourth member join, and takes it out.
func (l *life) joinAndRemove() error {
	if err := l.Bed.New("h4", 14, l.Bare); err != nil {
		return err
	}
	joined := fleet.Retry(3*time.Minute, time.Second, func() error { return l.run("h4", l.join...) })
	removed := fleet.Retry(3*time.Minute, time.Second, func() error { _, err := l.operator.ask("", "remove", "etcd-h4"); return err })
	return errors.Join(joined, removed, l.Bed.Remove("h4"))
}

// befall lets faults happen until a time, and all be well after each.
func (l *life) befall(t *testing.T, random *rand.Rand, until time.Time) (count map[string]int) {
	t.Helper()
	count = map[string]int{}
	for time.Now().Before(until) {
		f := faults[random.IntN(len(faults))]
		began := time.Now()
		err := f.do(l, random)
		t.Logf("%s %s for %s: %v", began.Format(time.TimeOnly), f.name, time.Since(began).Round(time.Second), err)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		l.Well(t, 3*time.Minute)
		count[f.name]++
	}
	return count
}
