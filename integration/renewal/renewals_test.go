package renewal

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/integration/load"
)

var names = []string{"h1", "h2", "h3"}

// ports gives a port of each member.
func (w *world) ports(port string) []string {
	var all []string
	for n := 11; n <= 13; n++ {
		all = append(all, w.Bed.Address(n)+":"+port)
	}
	return all
}

// write writes to all members.
func (w *world) write(t *testing.T, c *client, perSecond int) *load.Load {
	t.Helper()
	var endpoints []string
	for _, address := range w.ports("2379") {
		endpoints = append(endpoints, "https://"+address)
	}
	writes, err := load.Start(endpoints, c.config(t), perSecond)
	if err != nil {
		t.Fatal(err)
	}
	return writes
}

// well waits until all members vote, answer, and have a certificate with a life
// before it.
func (w *world) well(t *testing.T, atMost time.Duration) {
	t.Helper()
	for _, name := range names {
		fleet.Eventually(t, atMost, name+" is well", func() error {
			if _, err := w.Bed.Exec(name, "openssl", "x509", "-in", "/etc/etcd/pki/member.crt", "-noout", "-checkend", "40"); err != nil {
				return errors.New("its certificate is old")
			}
			out, err := w.Ctl(name, "endpoint", "health", "--cluster")
			if err == nil && strings.Count(out, "is healthy") != 3 {
				err = errors.New(out)
			}
			return err
		})
	}
}

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
	c := w.newClient(t, "kubemaster-01")
	writes := w.write(t, c, 100)
	addresses := w.ports("2379")
	p := newProber(c.config(t), addresses)
	fleet.Eventually(t, time.Duration(times)*time.Minute+time.Minute, fmt.Sprintf("all were renewed %d times", times), func() error {
		if members, clients := p.renewals(addresses), c.renewals(); members < times || clients < times {
			return fmt.Errorf("members %d times, the client %d times", members, clients)
		}
		return nil
	})
	shakes, failed := p.end()
	report, err := writes.Stop()
	t.Logf("%d renewals of the members, %d of the client; %d handshakes; %s", p.renewals(addresses), c.renewals(), shakes, report)
	if err != nil || report.FirstFailed > 0 || report.Lost > 0 {
		t.Errorf("writes failed: %s, %v", report, err)
	}
	if len(failed) > 0 {
		t.Errorf("%d handshakes failed: %v", len(failed), failed[0])
	}
	for _, name := range names {
		for _, line := range w.said(name, "etcd", began, "rejected connection") {
			if strings.Contains(line, "tls:") || strings.Contains(line, "x509") {
				t.Errorf("%s refused somebody: %s", name, line)
			}
		}
		if lines := w.said(name, "signerd-sync", began, "restarting etcd"); len(lines) > 0 {
			t.Errorf("%s restarted etcd for a certificate: %s", name, lines[0])
		}
	}
}

// said gives the lines of a host's journal by a unit since some time that have a
// text in them, each after the seconds since 1970.
func (w *world) said(name, unit string, since time.Time, text string) []string {
	var lines []string
	for line := range strings.Lines(w.Bed.Logs(name, "-u", unit, "-o", "short-unix", fmt.Sprintf("--since=@%d", since.Unix()))) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// The signer is off for more than half a certificate's life.
func (w *world) signerAway(t *testing.T) {
	began := time.Now()
	c := w.newClient(t, "kubemaster-02")
	writes := w.write(t, c, 100)
	w.On(t, "h1", "systemctl", "stop", "signerd")
	<-time.After(70 * time.Second)
	if lines := w.said("h2", "signerd-sync", began, "the signer cannot be reached"); len(lines) == 0 {
		t.Error("h2 does not say that it cannot renew")
	}
	w.On(t, "h1", "systemctl", "start", "signerd")
	w.well(t, 40*time.Second)
	report, err := writes.Stop()
	t.Log(report)
	if err != nil || report.FirstFailed > 0 || report.Lost > 0 {
		t.Errorf("writes failed: %s, %v", report, err)
	}
}

// All machines are off until every certificate has expired: they come back without
// a command.
func (w *world) allExpired(t *testing.T) {
	for _, name := range names {
		if err := w.Bed.PowerOff(name); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(130 * time.Second)
	for _, name := range names {
		go func() { _ = w.Bed.Boot(name) }() // none is ready before it has a quorum
	}
	began := time.Now()
	w.well(t, 2*time.Minute)
	t.Logf("all were well %s after their power came back", time.Since(began).Round(time.Second))
}

// A clock that is wrong, the member's or the signer's, is told with both times. A
// certificate that is good is not thrown away for one that is not, and etcd is not
// restarted.
func (w *world) aClock(t *testing.T) {
	for _, host := range []string{"h3", "h1"} {
		for _, by := range []time.Duration{time.Hour, -time.Hour} {
			w.well(t, time.Minute)
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
	w.well(t, time.Minute)
}
