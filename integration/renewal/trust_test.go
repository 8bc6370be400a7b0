package renewal

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
)

// Members take other CAs by a restart, one at a time, whatever becomes of one of
// them meanwhile, and writes go on.
func TestTrustChanges(t *testing.T) {
	w := cluster(t)
	began := time.Now()
	for i, test := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"all are well", func(t *testing.T) { w.trust(t, "plain") }},
		{"one is down", w.oneDown},
		{"one hangs", w.oneHangs},
		{"one does not come back", w.oneLost},
		{"the holder is killed", w.holderKilled},
		{"the holder stands still", w.holderFrozen},
		{"the holder stands still for a moment", w.holderSlept},
	} {
		if !long && slices.Contains([]string{"all are well", "one is down", "the holder is killed", "the holder stands still for a moment"}, test.name) {
			continue // the others have most of that in them
		}
		ok := t.Run(test.name, func(t *testing.T) {
			c := w.NewClient(t, fmt.Sprintf("kubemaster-1%d", i))
			writes := w.Write(t, c, 50)
			test.do(t)
			w.trusted(t, 2*time.Minute)
			w.oneByOne(t, began)
			report, err := writes.Stop()
			t.Log(report)
			// What hangs goes on acknowledging packets: a client's keepalive takes
			// longer to find that out than a write may wait.
			if hung := test.name == "one hangs"; err != nil || report.Lost > 0 && !hung {
				t.Errorf("writes were lost: %s, %v", report, err)
			}
			if report.LongestGap > 5*time.Second {
				t.Errorf("for %s nobody could write: the quorum was lost", report.LongestGap)
			}
		})
		if !ok {
			return // the next would begin with a cluster that is not well
		}
	}
	_ = t.Run("without quorum", w.withoutQuorum) &&
		t.Run("two ports that differ", w.portsDiffer) &&
		t.Run("CAs from elsewhere", w.elsewhere) &&
		t.Run("another CA", w.anotherCA)
}

// trust lets the signer hand out one more CA, another one for each name, in the
// place of the one before.
func (w *world) trust(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "extra.crt")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", filepath.Join(dir, "key"),
		"-out", path, "-days", "10", "-subj", "/CN=extra "+name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := w.Bed.Push("h1", path, "/etc/signerd/extra.crt"); err != nil {
		t.Fatal(err)
	}
	w.On(t, "h1", "sh", "-c", "chmod 644 /etc/signerd/extra.crt; grep -q trust: /etc/signerd/signerd.yaml || echo 'trust: [extra.crt]' >> /etc/signerd/signerd.yaml; "+
		"signerd check && systemctl restart signerd && sync")
}

// loaded gives the names of the CAs that an etcd trusts at a port, as it says to
// whoever connects.
func (w *world) loaded(address string) (string, error) {
	out, err := exec.Command("timeout", "5", "sh", "-c", "openssl s_client -connect "+address+" < /dev/null 2>/dev/null | sed -n '/^Acceptable client/,/^\\(Client Cert\\|Requested\\|Shared\\|Peer\\|---\\)/p'").Output()
	if err != nil || !strings.Contains(string(out), "CN") {
		return "", fmt.Errorf("%s does not say what it trusts: %q %w", address, out, err)
	}
	return string(out), nil
}

// trusted waits until every port of every member trusts what the signer hands out.
func (w *world) trusted(t *testing.T, atMost time.Duration) {
	t.Helper()
	bundle := w.On(t, "h1", "openssl", "x509", "-in", "/etc/signerd/extra.crt", "-noout", "-subject", "-nameopt", "RFC2253")
	extra := strings.TrimPrefix(strings.TrimSpace(bundle), "subject=CN=")
	for _, address := range slices.Concat(w.Ports("2379"), w.Ports("2380")) {
		fleet.Eventually(t, atMost, address+" trusts "+extra, func() error {
			names, err := w.loaded(address)
			if err == nil && (!strings.Contains(names, extra) || strings.Count(names, "extra") != 1) {
				err = fmt.Errorf("it trusts %s", names)
			}
			return err
		})
	}
	w.Well(t, time.Minute)
}

// oneByOne makes sure that at no time sync restarted two members: from each
// "restarting" to the member's "is back", or the end of the run, nobody else began.
func (w *world) oneByOne(t *testing.T, since time.Time) {
	t.Helper()
	type span struct {
		host       string
		begin, end float64
	}
	var spans []span
	for _, name := range fleet.Names {
		open := -1
		for _, line := range w.Said(name, "signerd-sync", since, "") {
			at, _ := strconv.ParseFloat(strings.Fields(line + " 0")[0], 64)
			switch {
			case strings.Contains(line, "Starting "): // the run before may have ended with its machine
				open = -1
			case strings.Contains(line, "restarting etcd"):
				spans = append(spans, span{name, at, at})
				open = len(spans) - 1
			case open >= 0:
				spans[open].end = at
				if strings.Contains(line, "etcd is back") || strings.Contains(line, "exited") {
					open = -1
				}
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; a.host != b.host && b.begin < a.end {
			t.Errorf("%s was restarted at %.2f, while %s was from %.2f to %.2f", b.host, b.begin, a.host, a.begin, a.end)
		}
	}
	t.Logf("%d restarts so far, one by one", len(spans))
}

// nobody makes sure that sync restarts no member for a while. Each host waits, and one of
// them says for whom: the others may wait for that one.
func (w *world) nobody(t *testing.T, waitsFor int, hosts ...string) {
	t.Helper()
	began := time.Now()
	fleet.Eventually(t, time.Minute, strings.Join(hosts, " and ")+" say what they wait for", func() error {
		named := false
		var said []string
		for _, name := range hosts {
			lines := w.Said(name, "signerd-sync", began, "waiting to restart etcd")
			if len(lines) == 0 {
				return fmt.Errorf("%s says %s", name, w.Said(name, "signerd-sync", began, ""))
			}
			said = append(said, lines...)
			for _, line := range lines {
				named = named || strings.Contains(line, fmt.Sprint("etcd-h", waitsFor-10)) || strings.Contains(line, w.Bed.Address(waitsFor))
			}
		}
		if !named {
			return fmt.Errorf("nobody names it: %q", said)
		}
		return nil
	})
	<-time.After(10 * time.Second)
	for _, name := range hosts {
		if lines := w.Said(name, "signerd-sync", began, "restarting etcd"); len(lines) > 0 {
			t.Errorf("%s restarted etcd: %s", name, lines[0])
		}
	}
}

func (w *world) oneDown(t *testing.T) {
	w.On(t, "h3", "sync")
	if err := w.Bed.PowerOff("h3"); err != nil {
		t.Fatal(err)
	}
	w.trust(t, "down")
	w.nobody(t, 13, "h1", "h2")
	if err := w.Bed.Boot("h3"); err != nil {
		t.Fatal(err)
	}
}

func (w *world) oneHangs(t *testing.T) {
	w.On(t, "h3", "pkill", "-STOP", "-x", "etcd")
	w.trust(t, "hangs")
	w.nobody(t, 13, "h1", "h2")
	w.On(t, "h3", "pkill", "-CONT", "-x", "etcd")
}

// oneLost: a member that is restarted and does not start stops the roll.
func (w *world) oneLost(t *testing.T) {
	for _, name := range fleet.Names {
		w.On(t, name, "systemctl", "stop", "signerd-sync.timer", "signerd-sync.service")
	}
	w.On(t, "h2", "sh", "-c", "echo ETCD_HEARTBEAT_INTERVAL=soon >> /etc/default/etcd")
	w.trust(t, "lost")
	began := time.Now()
	w.On(t, "h2", "systemctl", "start", "--no-block", "signerd-sync.service")
	fleet.Eventually(t, time.Minute, "h2 says that its etcd does not come back", func() error {
		if lines := w.Said("h2", "signerd-sync", began, "etcd was restarted and is not back"); len(lines) == 0 {
			return fmt.Errorf("it says %s", w.Said("h2", "signerd-sync", began, ""))
		}
		return nil
	})
	for _, name := range []string{"h1", "h3"} {
		w.On(t, name, "systemctl", "start", "signerd-sync.timer")
	}
	w.nobody(t, 12, "h1", "h3")
	w.On(t, "h2", "sed", "-i", "/HEARTBEAT/d", "/etc/default/etcd")
	w.On(t, "h2", "systemctl", "start", "signerd-sync.timer")
}

// atItsTurn lets sync on h2 stop when it has got the turn to restart: at once ("turn"), or
// right before the restart ("held").
func (w *world) atItsTurn(t *testing.T, name, at string) {
	t.Helper()
	for _, host := range fleet.Names {
		w.On(t, host, "sh", "-c", "systemctl stop signerd-sync.timer; systemctl stop signerd-sync.service")
	}
	w.trust(t, name)
	w.On(t, "h2", "sh", "-c", "printf '[Service]\\nEnvironment=SIGNERD_STOP="+at+"-1\\n' > /etc/systemd/system/signerd-sync.service.d/stop.conf && "+
		"systemctl daemon-reload && systemctl start --no-block signerd-sync.service")
	fleet.Eventually(t, time.Minute, "h2 has its turn and stands still", func() error {
		out, err := w.Bed.Enter("h2", "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null")
		if !strings.Contains(out, "(signerd) T ") {
			return fmt.Errorf("it does not: %w", err)
		}
		return nil
	})
	w.On(t, "h2", "sh", "-c", "rm /etc/systemd/system/signerd-sync.service.d/stop.conf && systemctl daemon-reload")
	for _, host := range []string{"h1", "h3"} {
		w.On(t, host, "systemctl", "start", "signerd-sync.timer")
	}
}

// othersFirst waits until h1 and h3 trust what they should.
func (w *world) othersFirst(t *testing.T, name string) {
	t.Helper()
	for _, n := range []int{11, 13} {
		fleet.Eventually(t, 2*time.Minute, fmt.Sprint("host ", n, " has had its turn"), func() error {
			names, err := w.loaded(w.Bed.Address(n) + ":2379")
			if err == nil && !strings.Contains(names, "extra "+name) {
				err = fmt.Errorf("it trusts %s", names)
			}
			return err
		})
	}
}

func (w *world) holderKilled(t *testing.T) {
	w.atItsTurn(t, "killed", "turn")
	w.On(t, "h2", "pkill", "-KILL", "-x", "signerd")
	w.othersFirst(t, "killed")
	w.On(t, "h2", "systemctl", "start", "signerd-sync.timer")
}

func (w *world) holderFrozen(t *testing.T) {
	w.atItsTurn(t, "frozen", "turn")
	w.othersFirst(t, "frozen")
	began := time.Now()
	w.On(t, "h2", "pkill", "-CONT", "-x", "signerd")
	fleet.Eventually(t, time.Minute, "h2 says that it has lost its turn", func() error {
		if lines := w.Said("h2", "signerd-sync", began, "the turn to restart"); len(lines) == 0 {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	if lines := w.Said("h2", "signerd-sync", began, "restarting etcd"); len(lines) > 0 {
		t.Errorf("h2 restarted etcd without its turn: %s", lines[0])
	}
	w.On(t, "h2", "systemctl", "start", "signerd-sync.timer")
}

// holderSlept: who stood still for half of the turn's life has it still, and does not
// restart by a look at the others that is as old.
func (w *world) holderSlept(t *testing.T) {
	w.atItsTurn(t, "slept", "held")
	<-time.After(9500 * time.Millisecond) // of 15 s, in builds for tests
	began := time.Now()
	w.On(t, "h2", "pkill", "-CONT", "-x", "signerd")
	fleet.Eventually(t, time.Minute, "h2 says that it stood still", func() error {
		if lines := w.Said("h2", "signerd-sync", began, "stood still while it had it"); len(lines) == 0 {
			return fmt.Errorf("it says %s", w.Said("h2", "signerd-sync", began, ""))
		}
		return nil
	})
	if lines := w.Said("h2", "signerd-sync", began, "restarting etcd"); len(lines) > 0 {
		t.Errorf("h2 restarted etcd: %s", lines[0])
	}
	w.On(t, "h2", "systemctl", "start", "signerd-sync.timer")
}

// withoutQuorum: an etcd that trusts what it should not, and waits for the others,
// is started again, since that may be what keeps them out.
func (w *world) withoutQuorum(t *testing.T) {
	for _, name := range []string{"h2", "h3"} {
		w.On(t, name, "sync")
		if err := w.Bed.PowerOff(name); err != nil {
			t.Fatal(err)
		}
	}
	w.On(t, "h1", "sh", "-c", "systemctl stop signerd-sync.timer signerd-sync.service; systemctl restart --no-block etcd")
	fleet.Eventually(t, time.Minute, "etcd on h1 waits for the others", func() error {
		_, err := w.loaded(w.Bed.Address(11) + ":2380")
		return err
	})
	w.trust(t, "quorum")
	began := time.Now()
	fleet.Eventually(t, time.Minute, "h1 starts etcd again", func() error {
		_, _ = w.Bed.Exec("h1", "signerd", "sync")
		names, err := w.loaded(w.Bed.Address(11) + ":2380")
		if err == nil && !strings.Contains(names, "extra quorum") {
			err = fmt.Errorf("it trusts %s", names)
		}
		return err
	})
	t.Logf("the peer port of h1 trusts the right CAs %s after they changed", time.Since(began).Round(time.Second))
	for _, name := range []string{"h2", "h3"} {
		go func() { _ = w.Bed.Boot(name) }()
	}
	w.On(t, "h1", "systemctl", "start", "signerd-sync.timer")
	w.trusted(t, 2*time.Minute)
}

// portsDiffer: etcd reads its CAs for the peer port when it starts, and for the
// client port when it has a quorum; a file that changed between gives it two.
func (w *world) portsDiffer(t *testing.T) {
	for _, name := range fleet.Names {
		w.On(t, name, "sh", "-c", "systemctl stop signerd-sync.timer signerd-sync.service; sync")
	}
	for _, name := range []string{"h2", "h3"} {
		if err := w.Bed.PowerOff(name); err != nil {
			t.Fatal(err)
		}
	}
	right := w.On(t, "h1", "cat", "/etc/etcd/pki/ca.crt")
	wrong := filepath.Join(t.TempDir(), "wrong.crt")
	if err := os.WriteFile(wrong, []byte(right), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -days 10 -subj '/CN=extra wrong' >> "+wrong).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.On(t, "h1", "cp", "/etc/etcd/pki/ca.crt", "/root/right.crt")
	if err := w.Bed.Push("h1", wrong, "/etc/etcd/pki/ca.crt"); err != nil {
		t.Fatal(err)
	}
	w.On(t, "h1", "sh", "-c", "chmod 644 /etc/etcd/pki/ca.crt; systemctl restart --no-block etcd")
	fleet.Eventually(t, time.Minute, "the peer port trusts too much", func() error {
		names, err := w.loaded(w.Bed.Address(11) + ":2380")
		if err == nil && !strings.Contains(names, "extra wrong") {
			err = fmt.Errorf("it trusts %s", names)
		}
		return err
	})
	w.On(t, "h1", "cp", "/root/right.crt", "/etc/etcd/pki/ca.crt")
	for _, name := range []string{"h2", "h3"} {
		go func() { _ = w.Bed.Boot(name) }()
	}
	w.Well(t, time.Minute)
	client, err := w.loaded(w.Bed.Address(11) + ":2379")
	if err != nil {
		t.Fatal(err)
	}
	if peer, err := w.loaded(w.Bed.Address(11) + ":2380"); err != nil || peer == client {
		t.Fatalf("the ports do not differ: %v", err)
	}
	w.On(t, "h1", "systemctl", "start", "signerd-sync.timer")
	w.trusted(t, 2*time.Minute)
}

// elsewhere: an etcd that loads other files is not restarted for ever.
func (w *world) elsewhere(t *testing.T) {
	w.On(t, "h2", "sh", "-c", "cp /etc/etcd/pki/ca.crt /etc/etcd/pki/old-ca.crt && sed -i 's/^ETCD_PEER_TRUSTED_CA_FILE=.*/ETCD_PEER_TRUSTED_CA_FILE=\\/etc\\/etcd\\/pki\\/old-ca.crt/' /etc/default/etcd")
	w.trust(t, "elsewhere")
	began := time.Now()
	fleet.Eventually(t, 2*time.Minute, "h2 says where its CAs come from", func() error {
		if lines := w.Said("h2", "signerd-sync", began, "etcd loads its CAs from elsewhere"); len(lines) == 0 {
			return fmt.Errorf("it says %s", w.Said("h2", "signerd-sync", began, ""))
		}
		return nil
	})
	<-time.After(10 * time.Second)
	if lines := w.Said("h2", "signerd-sync", began, "restarting etcd"); len(lines) != 1 {
		t.Errorf("h2 was restarted %d times: %s", len(lines), lines)
	}
	w.On(t, "h2", "sh", "-c", "sed -i 's/^ETCD_PEER_TRUSTED_CA_FILE=.*/ETCD_PEER_TRUSTED_CA_FILE=\\/etc\\/etcd\\/pki\\/ca.crt/' /etc/default/etcd && systemctl restart etcd")
	w.trusted(t, 2*time.Minute)
}

// anotherCA: the CA's key was lost, and another CA signs, while the old one is
// handed out too. No member shows a certificate of the new one before all trust it.
func (w *world) anotherCA(t *testing.T) {
	began := time.Now()
	w.On(t, "h1", "sh", "-c", "systemctl stop signerd && cp /var/lib/signerd/authority/active.crt /etc/signerd/lost.crt && chmod 644 /etc/signerd/lost.crt && "+
		"mv /var/lib/signerd/authority /root/lost && signerd ca create && chown -R signerd:signerd /var/lib/signerd && "+
		"sed -i '/^trust:/d' /etc/signerd/signerd.yaml && echo 'trust: [lost.crt]' >> /etc/signerd/signerd.yaml && signerd check && systemctl start signerd && sync")
	issuer := strings.TrimPrefix(strings.TrimSpace(w.On(t, "h1", "openssl", "x509", "-in", "/var/lib/signerd/authority/active.crt", "-noout", "-subject")), "subject=")
	for _, name := range fleet.Names {
		fleet.Eventually(t, 3*time.Minute, name+" has a certificate of the new CA", func() error {
			out, err := w.Bed.Exec(name, "openssl", "x509", "-in", "/etc/etcd/pki/member.crt", "-noout", "-issuer")
			if err == nil && strings.TrimPrefix(strings.TrimSpace(out), "issuer=") != issuer {
				err = fmt.Errorf("it is %s", out)
			}
			return err
		})
	}
	w.Well(t, time.Minute)
	// Until etcd knows it, a signer that does not name the lost CA is another cluster's.
	fleet.Eventually(t, time.Minute, "etcd knows who signs", func() error {
		if lines := w.Said("h1", "signerd", began, "etcd can be used again"); len(lines) == 0 {
			return fmt.Errorf("signerd says %s", w.Said("h1", "signerd", began, ""))
		}
		return nil
	})
	w.On(t, "h1", "sh", "-c", "sed -i '/^trust:/d' /etc/signerd/signerd.yaml && systemctl restart signerd")
	for _, address := range slices.Concat(w.Ports("2379"), w.Ports("2380")) {
		fleet.Eventually(t, 3*time.Minute, address+" trusts the new CA alone", func() error {
			names, err := w.loaded(address)
			if err == nil && strings.Count(names, "CN") != 1 {
				err = fmt.Errorf("it trusts %s", names)
			}
			return err
		})
	}
	w.Well(t, time.Minute)
}
