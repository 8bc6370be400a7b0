package rotation

import (
	"errors"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
)

// Members take the new CA one at a time, whatever becomes of one of them meanwhile, and
// the rotation ends with the old one out.
func TestRollSurvives(t *testing.T) {
	if !long {
		t.Skip("integration/renewal has most of it; make long")
	}
	w := cluster(t)
	c := w.NewClient(t, "kubemaster-01")
	for _, test := range []struct {
		name  string
		fault func(t *testing.T, since time.Time)
	}{
		{"a member is off before its restart", func(t *testing.T, _ time.Time) { w.off(t, "h3", 10*time.Second) }},
		{"a member loses power in its restart", func(t *testing.T, since time.Time) {
			w.off(t, w.whoSays(t, since, "restarting etcd"), 5*time.Second)
		}},
		{"a member loses power after its restart", func(t *testing.T, since time.Time) {
			w.off(t, w.whoSays(t, since, "etcd is back"), 5*time.Second)
		}},
		{"two members do not reach each other", func(t *testing.T, since time.Time) {
			w.whoSays(t, since, "restarting etcd")
			if err := w.Bed.Cut("h2", "h3"); err != nil {
				t.Fatal(err)
			}
			<-time.After(15 * time.Second)
			if err := w.Bed.Heal("h2", "h3"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			thief := w.steal(t)
			writes := w.Write(t, c, 50)
			w.rotate(t, "prepare", time.Minute)
			w.rotate(t, "activate", time.Minute)
			w.forget(t, c, "kubemaster-01")
			began := time.Now()
			w.rotate(t, "retire", 2*time.Minute)
			test.fault(t, began)
			fleet.Eventually(t, 4*time.Minute, "the old CA is out", func() error {
				open, err := thief.try(t, w)
				if err == nil && len(open) > 0 {
					err = errors.New(open[0])
				}
				return err
			})
			t.Logf("the old CA was out %s after retire", time.Since(began).Round(time.Second))
			report, err := writes.Stop()
			t.Log(report)
			if err != nil || report.Lost > 0 || report.LongestGap > 5*time.Second {
				t.Errorf("writes were lost, or the quorum: %s, %v", report, err)
			}
			w.release(t, "kubemaster-01")
			w.rotate(t, "finish", 2*time.Minute)
			w.Well(t, time.Minute)
		})
	}
}

// off cuts a host's power for a while.
func (w *world) off(t *testing.T, name string, while time.Duration) {
	t.Helper()
	if err := w.Bed.PowerOff(name); err != nil {
		t.Fatal(err)
	}
	<-time.After(while)
	if err := w.Bed.Boot(name); err != nil {
		t.Fatal(err)
	}
}

// whoSays waits until sync on some host says something, and gives the host.
func (w *world) whoSays(t *testing.T, since time.Time, text string) (host string) {
	t.Helper()
	fleet.Eventually(t, time.Minute, "sync says: "+text, func() error {
		for _, name := range fleet.Names {
			if len(w.Said(name, "signerd-sync", since, text)) > 0 {
				host = name
				return nil
			}
		}
		return errors.New("nobody says so")
	})
	return host
}
