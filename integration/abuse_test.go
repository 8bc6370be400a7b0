package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever others do who have no key, from one address or from a thousand, and whatever four
// clients do with one, a client that has been let in before renews all the time; and
// afterwards the signer has no more files open than before.
func TestAbuse(t *testing.T) {
	v := newVictim(t)
	if err := v.renews(t.Context()); err != nil {
		t.Fatal(err)
	}
	files := v.files(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, attack := range []struct {
		name      string
		attackers int
		most      int // attempts in all
		do        func(context.Context, int) error
	}{
		{"silent connections", 300, 5000, v.silent},
		{"byte drip", 300, 5000, v.drips},
		{"connections from one address", 50, 5000, v.knocks(1)},
		{"connections from a thousand", 50, 5000, v.knocks(1000)},
		{"channels", 4, 1000, v.inSession(opensChannels)},
		{"environment", 4, 1000, v.inSession(setsVariables)},
		{"global requests", 4, 1000, v.inSession(asksGlobally)},
		{"key exchanges", 4, 1000, v.rekeys},
		{"huge keys", 20, 5000, v.offers(true)},
		{"wrong keys, four a connection", 20, 2500, v.offers(false)},
		{"garbled packets", 20, 5000, v.garbles(seed)},
		{"one permitted key", 4, 1000, v.inSession(v.asksAlways)},
	} {
		t.Run(attack.name, func(t *testing.T) {
			atMost := 3 * time.Second
			if long {
				atMost = 20 * time.Second
			}
			ctx, stop := context.WithTimeout(t.Context(), atMost)
			defer stop()
			attempts := make(chan int)
			go func() {
				defer close(attempts)
				for i := range attack.most {
					select {
					case attempts <- i:
					case <-ctx.Done():
						return
					}
				}
			}()
			var group sync.WaitGroup
			var mu sync.Mutex
			made, reasons := 0, map[string]int{}
			for range attack.attackers {
				group.Go(func() {
					for i := range attempts {
						err := attack.do(ctx, i)
						if errors.Is(err, errLetIn) {
							t.Error(err)
						}
						mu.Lock()
						made++
						reasons[reason(err)]++
						mu.Unlock()
					}
				})
			}
			worst, renewals := time.Duration(0), 0
			every := time.NewTicker(time.Second / 4)
			for ctx.Err() == nil {
				began := time.Now()
				if err := v.renews(t.Context()); err != nil {
					t.Errorf("the honest client after %d renewals: %v", renewals, err)
				}
				renewals++
				worst = max(worst, time.Since(began))
				<-every.C
			}
			group.Wait()
			t.Logf("%d attempts %v; %d honest renewals, the worst in %s", made, reasons, renewals, worst.Round(time.Millisecond))
			if made < attack.attackers/2 {
				t.Error("hardly anybody attacked: the test is wrong")
			}
			if worst > 3*time.Second {
				t.Errorf("the honest client waited for %s", worst)
			}
		})
	}
	eventually(t, 30*time.Second, "the connections are gone", func() bool { return v.files(t) <= files })
	if log := read(t, v.Path("signerd.log")); strings.Contains(log, "panic") {
		t.Error("the signer's log has a panic")
	}
	t.Logf("%s in use at most", v.memory(t))
}

// reason gives an error's kind, for a count of them.
func reason(err error) string {
	if err == nil {
		return "none"
	}
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}

// files gives how many files the signer has open.
func (v *victim) files(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(v.Signer.PID()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// memory gives the most that the signer ever had resident.
func (v *victim) memory(t *testing.T) string {
	t.Helper()
	status := read(t, filepath.Join("/proc", strconv.Itoa(v.Signer.PID()), "status"))
	_, after, _ := strings.Cut(status, "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}
