package renewal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

// Members and clients renew again and again while writes go on, and nobody sees it;
// what was missed is caught up with, by nobody's hand.
func TestStayingValid(t *testing.T) {
	w := cluster(t)
	t.Run("renewals", w.renewals)
	t.Run("the signer is away", w.signerAway)
	t.Run("all expired", w.allExpired)
	t.Run("a clock", w.aClock)
}

func (w *world) renewals(t *testing.T) {
	times := 2
	if long {
		times = 20
	}
	began := time.Now()
	c := w.NewClient(t, "kubemaster-01")
	writes := w.Write(t, c, 100)
	addresses := w.Ports("2379")
	p := newProber(c.Config(t), addresses)
	fleet.Eventually(t, time.Duration(times)*time.Minute+time.Minute, fmt.Sprintf("all were renewed %d times", times), func() error {
		if members, clients := p.renewals(addresses), c.Renewals(); members < times || clients < times {
			return fmt.Errorf("members %d times, the client %d times", members, clients)
		}
		return nil
	})
	shakes, failed := p.end()
	report, err := writes.Stop()
	t.Logf("%d renewals of the members, %d of the client; %d handshakes; %s", p.renewals(addresses), c.Renewals(), shakes, report)
	if err != nil || report.FirstFailed > 0 || report.Lost > 0 {
		t.Errorf("writes failed: %s, %v", report, err)
	}
	if len(failed) > 0 {
		t.Errorf("%d handshakes failed: %v", len(failed), failed[0])
	}
	for _, name := range fleet.Names {
		for _, line := range w.Said(name, "etcd", began, "rejected connection") {
			if strings.Contains(line, "tls:") || strings.Contains(line, "x509") {
				t.Errorf("%s refused somebody: %s", name, line)
			}
		}
		if lines := w.Said(name, "signerd-sync", began, "restarting etcd"); len(lines) > 0 {
			t.Errorf("%s restarted etcd for a certificate: %s", name, lines[0])
		}
	}
}

// The signer is off for more than half a certificate's life.
func (w *world) signerAway(t *testing.T) {
	began := time.Now()
	c := w.NewClient(t, "kubemaster-02")
	writes := w.Write(t, c, 100)
	w.On(t, "h1", "systemctl", "stop", "signerd")
	<-time.After(70 * time.Second)
	if lines := w.Said("h2", "signerd-sync", began, "the signer cannot be reached"); len(lines) == 0 {
		t.Error("h2 does not say that it cannot renew")
	}
	w.On(t, "h1", "systemctl", "start", "signerd")
	w.Well(t, 40*time.Second)
	report, err := writes.Stop()
	t.Log(report)
	if err != nil || report.FirstFailed > 0 || report.Lost > 0 {
		t.Errorf("writes failed: %s, %v", report, err)
	}
}

// All machines are off until every certificate has expired: they come back without
// a command.
func (w *world) allExpired(t *testing.T) {
	for _, name := range fleet.Names {
		if err := w.Bed.PowerOff(name); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(130 * time.Second)
	for _, name := range fleet.Names {
		go func() { _ = w.Bed.Boot(name) }() // none is ready before it has a quorum
	}
	began := time.Now()
	w.Well(t, 2*time.Minute)
	t.Logf("all were well %s after their power came back", time.Since(began).Round(time.Second))
}

// A clock that is wrong, the member's or the signer's, is told with both times. A
// certificate that is good is not thrown away for one that is not, and etcd is not
// restarted.
func (w *world) aClock(t *testing.T) {
	for _, host := range []string{"h3", "h1"} {
		for _, by := range []time.Duration{time.Hour, -time.Hour} {
			w.Well(t, time.Minute)
			w.On(t, "h3", "systemctl", "stop", "signerd-sync.timer", "signerd-sync.service")
			before := w.On(t, "h3", "sh", "-c", "cat /etc/etcd/pki/member.crt; systemctl show -p MainPID etcd")
			if err := w.Bed.Skew(host, by); err != nil {
				t.Fatal(err)
			}
			mine, signers := time.Now().UTC(), time.Now().UTC()
			if host == "h3" {
				mine = mine.Add(by)
			} else {
				signers = signers.Add(by)
			}
			_, err := w.Bed.Exec("h3", "signerd", "sync")
			if lab.ExitCode(err) != 75 || !strings.Contains(err.Error(), "this machine's says "+mine.Format("2006-01-02T15")) ||
				!strings.Contains(err.Error(), "the signer's says "+signers.Format("2006-01-02T15")) || !strings.Contains(err.Error(), "timedatectl") {
				t.Errorf("%s by %s: %v", host, by, err)
			}
			if after := w.On(t, "h3", "sh", "-c", "cat /etc/etcd/pki/member.crt; systemctl show -p MainPID etcd"); after != before {
				t.Errorf("%s by %s: the certificate or etcd is another one", host, by)
			}
			if err := w.Bed.Skew(host, 0); err != nil {
				t.Fatal(err)
			}
			w.On(t, "h3", "systemctl", "start", "signerd-sync.timer")
		}
	}
	w.Well(t, time.Minute)
}
