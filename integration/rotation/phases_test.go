package rotation

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

// A member joins and members renew in every phase of a rotation, there and back, while a
// client writes; and at the end everybody has only the new CA.
func TestPhases(t *testing.T) {
	if !long {
		t.Skip("the other tests have most of it; make long")
	}
	w := cluster(t)
	c := w.NewClient(t, "kubemaster-01")
	writes := w.Write(t, c, 50)
	first := w.bundle(t)[0]
	for _, phase := range []struct {
		step       string
		cas, chain int // of a member that joins then
	}{
		{"status", 1, 1},
		{"prepare", 2, 1}, {"activate", 2, 2}, {"rollback", 2, 1}, {"abort", 1, 1},
		{"prepare", 2, 1}, {"activate", 2, 2}, {"retire", 1, 2}, {"finish", 1, 1},
	} {
		if phase.step == "retire" {
			w.forget(t, c, "kubemaster-01")
		}
		if phase.step == "abort" {
			w.release(t, "kubemaster-01") // it may have a certificate by the CA that goes
		}
		w.rotate(t, phase.step, 2*time.Minute)
		w.joins(t, phase.cas, phase.chain)
	}
	w.Well(t, time.Minute)
	report, err := writes.Stop()
	t.Log(report)
	if err != nil || report.Lost > 0 {
		t.Errorf("writes were lost: %s, %v", report, err)
	}
	if cas := w.bundle(t); len(cas) != 1 || cas[0].Equal(first) {
		t.Errorf("at the end %d CAs are handed out", len(cas))
	}
}

// forget waits until a client has a certificate by the CA that signs now, and ends its
// hold: the ones by the other CA are in nobody's way then.
func (w *world) forget(t *testing.T, c *fleet.Client, name string) {
	t.Helper()
	had := c.Renewals()
	fleet.Eventually(t, 2*time.Minute, name+" is renewed", func() error {
		if c.Renewals() == had {
			return errors.New("not yet")
		}
		return nil
	})
	w.release(t, name)
}

// joins lets a fourth member join, with so many CAs in its bundle and certificates in
// its chain, and takes it out again.
func (w *world) joins(t *testing.T, cas, chain int) {
	t.Helper()
	if err := w.Bed.New("h4", 14, w.Bare); err != nil {
		t.Fatal(err)
	}
	fleet.Eventually(t, 3*time.Minute, "h4 joins", func() error { // it may have to wait for a restart
		out, err := w.Bed.Exec("h4", w.Join(t)...)
		if err != nil && lab.ExitCode(err) != 75 {
			t.Fatalf("%v\n%s", err, out)
		}
		return err
	})
	if voters, others := w.Members(t, "h4"); len(voters) != 4 || len(others) != 0 {
		t.Errorf("the members are %v and %v", voters, others)
	}
	for path, want := range map[string]int{"/etc/etcd/pki/ca.crt": cas, "/etc/etcd/pki/member.crt": chain} {
		if out := w.On(t, "h4", "cat", path); strings.Count(out, "BEGIN CERTIFICATE") != want {
			t.Errorf("%s has %d certificates, want %d", path, strings.Count(out, "BEGIN CERTIFICATE"), want)
		}
	}
	fleet.Eventually(t, time.Minute, "h4 is removed", func() error {
		_, err := w.SSH(t, "", "remove", "etcd-h4")
		return err
	})
	if err := w.Bed.Remove("h4"); err != nil {
		t.Fatal(err)
	}
}

// The signer's machine loses power before and after every durable write of every step:
// the step is done or not, whoever asks again finishes it, and no key is left over.
func TestStepsSurvivePowerCuts(t *testing.T) {
	w := cluster(t)
	cuts := 0
	for _, step := range []string{"prepare", "abort", "prepare", "activate", "rollback", "activate", "retire", "finish"} {
		for _, at := range []string{"before-1", "after-1", "before-2", "after-2"} {
			if !long && !slices.Contains([]string{"activate before-2", "finish after-2"}, step+" "+at) {
				continue
			}
			if done := w.cut(t, step, at); done {
				cuts++
				break // of this step the rest is for another rotation
			}
			cuts++
		}
		w.rotate(t, step, 2*time.Minute)
	}
	w.Well(t, time.Minute)
	t.Logf("%d power cuts", cuts)
}

// cut asks for a step, cuts the signer's power at one of its writes, and says whether the
// step was done.
func (w *world) cut(t *testing.T, step, at string) (done bool) {
	t.Helper()
	w.ready(t, step)
	before := w.phase(t)
	w.On(t, "h1", "sh", "-c", "mkdir -p /run/systemd/system/signerd.service.d && "+
		"printf '[Service]\\nEnvironment=SIGNERD_STOP="+at+"\\n' > /run/systemd/system/signerd.service.d/stop.conf && systemctl daemon-reload && systemctl restart signerd")
	asked := make(chan error, 1)
	go func() {
		_, err := w.SSH(t, "", "rotate", step)
		asked <- err
	}()
	fleet.Eventually(t, time.Minute, "signerd stands still", func() error {
		state, err := w.Bed.Exec("h1", "sh", "-c", "ps -o stat= -p $(systemctl show -p MainPID --value signerd)")
		if err == nil && !strings.HasPrefix(state, "T") {
			err = errors.New(state)
		}
		return err
	})
	if err := w.Bed.PowerOff("h1"); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil {
		t.Errorf("%s at %s was answered", step, at)
	}
	if err := w.Bed.Boot("h1"); err != nil {
		t.Fatal(err)
	}
	after := w.phase(t)
	done = after != before
	if counted := at == "after-2"; done != counted {
		t.Errorf("%s at %s: %s, and was %s", step, at, after, before)
	}
	keys := strings.TrimSpace(w.On(t, "h1", "sh", "-c", "ls -A /var/lib/signerd/authority | grep -c '^[0-9a-f]*.key$'"))
	want := "2"
	if after == "resting" {
		want = "1"
	}
	if keys != want {
		t.Errorf("%s at %s: %s keys are there in %s", step, at, keys, after)
	}
	w.Well(t, 2*time.Minute)
	return done
}

// ready waits until nothing is in the way of a step.
func (w *world) ready(t *testing.T, step string) {
	t.Helper()
	fleet.Eventually(t, 3*time.Minute, step+" may be done", func() error {
		status, err := w.SSH(t, "", "rotate", "status")
		if err == nil && slices.Contains([]string{"retire", "finish"}, step) && !strings.Contains(status, "next: ssh signer@HOST rotate "+step) {
			err = errors.New(status)
		}
		return err
	})
}
