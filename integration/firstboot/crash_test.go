package firstboot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/integration/load"
)

// some gives how often something is done: few times in CI, many in make long.
func some(few, many int) int {
	if long {
		return many
	}
	return few
}

// run is a first-boot on a host in the background.
type run struct {
	cmd    *exec.Cmd
	output strings.Builder
	done   chan error
}

// begin starts first-boot; it stops for good at a crash point, if one is named.
func (w *world) begin(t *testing.T, name, point string, args ...string) *run {
	t.Helper()
	r := &run{cmd: w.Bed.Command(name, append([]string{"env", "SIGNERD_STOP=" + point}, args...)...), done: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	return r
}

// stopped waits until first-boot stands at its crash point, or gives false if it
// ended well before.
func (w *world) stopped(t *testing.T, name string, r *run) bool {
	t.Helper()
	stopped, err := w.standsOrEnded(t, name, r)
	if err != nil {
		t.Fatalf("first-boot on %s: %v\n%s", name, err, r.output.String())
	}
	return stopped
}

// stoppedOrRefused is stopped for a first-boot that ends by being refused.
func (w *world) stoppedOrRefused(t *testing.T, name string, r *run) bool {
	t.Helper()
	stopped, err := w.standsOrEnded(t, name, r)
	if err != nil && lab.ExitCode(err) != 77 {
		t.Fatalf("first-boot on %s: %v\n%s", name, err, r.output.String())
	}
	return stopped
}

func (w *world) standsOrEnded(t *testing.T, name string, r *run) (stands bool, err error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		select {
		case err := <-r.done:
			return false, err
		case <-time.After(30 * time.Millisecond):
		}
		if out, err := w.Bed.Enter(name, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null"); err == nil || out != "" {
			if strings.Contains(out, "(first-boot) T ") {
				return true, nil
			}
		}
	}
	t.Fatalf("first-boot on %s neither stops nor ends", name)
	return false, nil
}

// cutPower cuts a host's power and boots it again. An etcd that cannot be ready
// keeps the host from having started, and not from being used.
func (w *world) cutPower(t *testing.T, name string) {
	t.Helper()
	if err := w.Bed.PowerOff(name); err != nil {
		t.Fatal(err)
	}
	if err := w.Bed.Boot(name); err != nil {
		if _, alive := w.Bed.Exec(name, "true"); alive != nil {
			t.Fatal(err)
		}
	}
}

// again gives the same command again, which must finish; if the folder is gone
// it has finished already.
func (w *world) again(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := w.Bed.Exec(name, "test", "-e", args[0]); err == nil {
		w.On(t, name, args...)
	}
	if out := w.On(t, name, "sh", "-c", "ls -A /root/setup 2>/dev/null; cat /var/lib/signerd-first-boot/receipt.json"); !strings.HasPrefix(out, "{") {
		t.Errorf("the setup folder is not gone: %s", out)
	}
}

// cuts gives the crash points to try, and then random times to cut at.
func cuts(t *testing.T, points int, most time.Duration) []cut {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var all []cut
	for n := 1; n <= points; n++ {
		for _, kind := range []string{"before", "after"} {
			if long || (n*2+len(kind))%9 == 0 {
				all = append(all, cut{point: fmt.Sprintf("%s-%d", kind, n)})
			}
		}
	}
	for range some(1, 40) {
		all = append(all, cut{after: time.Duration(random.Int64N(int64(most)))})
	}
	return all
}

// cut is when the power goes: at a crash point, or some time after the start.
type cut struct {
	point string
	after time.Duration
}

func (c cut) String() string {
	if c.point != "" {
		return c.point
	}
	return c.after.Round(time.Millisecond).String()
}

// reach runs first-boot until the cut is due, or gives false if it ended before.
func (w *world) reach(t *testing.T, name string, c cut, args ...string) bool {
	t.Helper()
	r := w.begin(t, name, c.point, args...)
	if c.point != "" {
		return w.stopped(t, name, r)
	}
	<-time.After(c.after)
	return true
}

// However often the power goes while init runs, the same command finishes, and
// makes one CA, one key and one cluster.
func TestInitSurvivesPowerCuts(t *testing.T) {
	w := here(t)
	recipient, err := os.ReadFile(w.Path("operator.pub"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{fleet.Setup, "init", "--cluster=" + cluster, "--backup-recipient=" + string(recipient)}
	for _, c := range cuts(t, 13, 1300*time.Millisecond) {
		t.Run(c.String(), func(t *testing.T) {
			w.Machine(t, "h1", 11, w.Bare)
			reached := w.reach(t, "h1", c, args...)
			if !reached && c.point != "" {
				t.Logf("init ended before %s", c.point)
			}
			w.cutPower(t, "h1")
			before := w.On(t, "h1", "sh", "-c", "cat /var/lib/signerd/authority/*.crt /etc/etcd/pki/member.key 2>/dev/null || true")
			w.again(t, "h1", args...)
			if after := w.On(t, "h1", "sh", "-c", "cat /var/lib/signerd/authority/*.crt /etc/etcd/pki/member.key"); before != "" && !strings.Contains(after, before) && !strings.HasPrefix(after, before) {
				t.Error("the CA or the key that was there is another now")
			}
			if voters, others := w.Members(t, "h1"); len(voters) != 1 || len(others) != 0 {
				t.Errorf("the members are %v and %v", voters, others)
			}
			if out, err := w.SSH(t, "", "get-peers"); err != nil || strings.TrimSpace(out) != "https://"+w.Bed.Address(11)+":2379" {
				t.Errorf("get-peers: %q, %v", out, err)
			}
			w.Client(t, "kubemaster-01")
			w.On(t, "h1", "sh", "-c", "signerd check && signerd ledger verify")
			w.backedUp(t)
			if n := strings.TrimSpace(w.On(t, "h1", "sh", "-c", "ls /var/lib/signerd/authority/????????.key | wc -l")); n != "1" {
				t.Errorf("there are %s CA keys", n)
			}
			w.secret(t, "h1")
		})
	}
}

// backedUp makes sure that there is one backup, which its recipient can open.
func (w *world) backedUp(t *testing.T) {
	t.Helper()
	if out := w.On(t, "h1", "sh", "-c", "cd /root && find . -name '*.age*' | xargs stat -c '%n %a'; signerd status || true"); !strings.HasPrefix(out, "./signerd-prod-a.age 600\n") ||
		strings.Count(out, ".age") != 1 || strings.Contains(out, "signerd ca backup") {
		t.Errorf("the backup: %s", out)
	}
	out, err := w.Bed.Exec("h1", "sh", "-c", "mkdir /run/there && signerd ca restore --config /run/there/signerd.yaml --identity /root/.ssh/id_ed25519 --fingerprint 00 /root/signerd-prod-a.age")
	if lab.ExitCode(err) != 73 || !strings.Contains(err.Error(), "this machine is a signer") {
		t.Errorf("the backup is opened: %s, %v", out, err)
	}
}

// pair boots a cluster of h1, which signs, and h2. It is a new one each time: an
// etcd 3.7 that lost its power while it caught up with a log in which a member
// was removed panics ("member unknown"), so that a cluster which h3 left cannot
// be used again.
func (w *world) pair(t *testing.T) {
	t.Helper()
	first, second := w.Path("pair-1.img"), w.Path("pair-2.img")
	if _, err := os.Stat(second); err != nil {
		w.Machine(t, "h1", 11, w.Signer)
		w.Machine(t, "h2", 12, w.Bare)
		w.On(t, "h2", w.Join(t)...)
		if err := errors.Join(w.Bed.Image("h2", second), w.Bed.Image("h1", first), w.Bed.Remove("h1"), w.Bed.Remove("h2")); err != nil {
			t.Fatal(err)
		}
	}
	begun := make(chan error)
	go func() { begun <- w.Bed.New("h1", 11, first) }() // neither is up without the other
	w.Machine(t, "h2", 12, second)
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Bed.Remove("h1"); err != nil {
			t.Error(err)
		}
	})
	fleet.Eventually(t, time.Minute, "both vote", func() error {
		out, err := w.SSH(t, "", "get-peers")
		if err == nil && strings.Count(out, "\n") != 2 {
			err = errors.New(out)
		}
		return err
	})
}

// joined makes sure that h3 is a member.
func (w *world) joined(t *testing.T) {
	t.Helper()
	fleet.Eventually(t, time.Minute, "all three vote", func() error {
		if voters, others := w.Members(t, "h1"); len(voters) != 3 || len(others) != 0 {
			return fmt.Errorf("the members are %v and %v", voters, others)
		}
		return nil
	})
	if out, err := w.Ctl("h3", "put", "from", "h3"); err != nil {
		t.Errorf("a write at the new member: %v %s", err, out)
	}
	w.secret(t, "h3")
	w.On(t, "h1", "sh", "-c", "signerd ledger verify")
}

// However often the power goes on the machine that joins, the same command
// finishes, no ghost is left, and the cluster takes writes throughout.
func TestJoinSurvivesPowerCuts(t *testing.T) {
	w := here(t)
	for _, c := range cuts(t, 11, 2500*time.Millisecond) {
		t.Run(c.String(), func(t *testing.T) {
			w.pair(t)
			w.Machine(t, "h3", 13, w.Bare)
			args := w.Join(t)
			config, _ := w.Client(t, "kubemaster-load")
			writes, err := load.Start([]string{"https://" + w.Bed.Address(11) + ":2379", "https://" + w.Bed.Address(12) + ":2379"}, config, 50)
			if err != nil {
				t.Fatal(err)
			}
			w.reach(t, "h3", c, args...)
			w.cutPower(t, "h3")
			w.again(t, "h3", args...)
			w.joined(t)
			report, err := writes.Stop()
			t.Log(report)
			if err != nil || report.FirstFailed > 0 || report.Lost > 0 {
				t.Errorf("writes failed: %s, %v", report, err)
			}
		})
	}
}

// The same for the machine that signs, while another one joins: nothing that etcd
// had taken is lost.
func TestJoinSurvivesPowerCutsOfTheSigner(t *testing.T) {
	w := here(t)
	for _, c := range cuts(t, 11, 2500*time.Millisecond) {
		t.Run(c.String(), func(t *testing.T) {
			w.pair(t)
			w.Machine(t, "h3", 13, w.Bare)
			args := w.Join(t)
			const keys = 20
			for n := range keys {
				if out, err := w.Ctl("h1", "put", fmt.Sprintf("kept/%02d", n), c.String()); err != nil {
					t.Fatal(err, out)
				}
			}
			r := w.begin(t, "h3", c.point, args...)
			ended := false
			if c.point != "" {
				ended = !w.stopped(t, "h3", r)
			} else {
				<-time.After(c.after)
			}
			if err := w.Bed.PowerOff("h1"); err != nil {
				t.Fatal(err)
			}
			if c.point != "" && !ended {
				if _, err := w.Bed.Enter("h3", "pkill", "-CONT", "-x", "first-boot"); err != nil {
					t.Fatal(err)
				}
			}
			<-time.After(time.Second) // the join meets a signer that is away
			if err := w.Bed.Boot("h1"); err != nil {
				t.Fatal(err)
			}
			if !ended {
				if err := <-r.done; err != nil {
					t.Logf("the join ended with %v\n%s", err, r.output.String())
				}
			}
			w.again(t, "h3", args...)
			w.joined(t)
			if out, err := w.Ctl("h3", "get", "--prefix", "kept/", "--print-value-only"); err != nil || strings.Count(out, c.String()+"\n") != keys {
				t.Errorf("of %d keys the new member has %q, %v", keys, out, err)
			}
		})
	}
}

// However often the power goes while a join fails and is taken back, the same
// command takes it back in the end, with what the distribution had here.
func TestUndoSurvivesPowerCuts(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Signer)
	for _, c := range cuts(t, 8, 2500*time.Millisecond) {
		t.Run(c.String(), func(t *testing.T) {
			w.Machine(t, "h2", 12, w.Bare)
			w.packaged(t, "h2")
			before := w.packagedState(t, "h2")
			args := w.Join(t, "--identity="+w.key(t, "h2", `permit="get-*"`))
			w.On(t, "h2", "sync")
			r := w.begin(t, "h2", c.point, args...)
			if c.point == "" {
				<-time.After(c.after)
			} else if !w.stoppedOrRefused(t, "h2", r) {
				t.Logf("the join was undone before %s", c.point)
			}
			w.cutPower(t, "h2")
			if _, err := w.Bed.Exec("h2", args...); lab.ExitCode(err) != 77 || !strings.Contains(err.Error(), "everything was undone") {
				t.Errorf("the same again: %v", err)
			}
			w.isBack(t, "h2", before)
		})
	}
}
