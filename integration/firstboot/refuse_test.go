package firstboot

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

// state is everything that first-boot could have changed on a host.
func (w *world) state(t *testing.T, name string) string {
	t.Helper()
	return w.On(t, name, "sh", "-c", `find /etc /root /var/lib/etcd /var/lib/signerd /var/lib/signerd-first-boot -xdev '(' -type f -o -type l ')' \
		! -path '/etc/systemd/system/sshd.service' -print0 2>/dev/null | sort -z | xargs -0 sha256sum; systemctl is-enabled etcd signerd 2>&1; systemctl is-active etcd signerd || true`)
}

// refusal is a join or an init that must change nothing and say why.
type refusal struct {
	what  string
	args  []string
	code  int
	says  []string // reason, and what to do next
	first func() error
	then  func() error
}

// refuse runs them, and after them the valid neighbour.
func (w *world) refuse(t *testing.T, name string, refusals []refusal) {
	t.Helper()
	for _, r := range refusals {
		t.Run(r.what, func(t *testing.T) {
			if r.first != nil {
				if err := r.first(); err != nil {
					t.Fatal(err)
				}
			}
			before := w.state(t, name)
			out, err := w.Bed.Exec(name, r.args...)
			if after := w.state(t, name); after != before {
				t.Errorf("it changed the machine:\n%s\n%s", before, after)
			}
			if r.then != nil {
				if err := r.then(); err != nil {
					t.Fatal(err)
				}
			}
			if lab.ExitCode(err) != r.code {
				t.Fatalf("it ended with %v, want %d\n%s", err, r.code, out)
			}
			for _, sentence := range r.says {
				if !strings.Contains(err.Error(), sentence) {
					t.Errorf("it does not say %q: %v", sentence, err)
				}
			}
		})
	}
}

// key makes another SSH key on a host and has the signer admit it with options.
func (w *world) key(t *testing.T, name, options string) string {
	t.Helper()
	path := "/root/.ssh/" + strings.NewReplacer(" ", "-", "/", "-").Replace(filepath.Base(t.Name()))
	public := w.On(t, name, "sh", "-c", fmt.Sprintf("ssh-keygen -q -t ed25519 -N '' -f %s </dev/null >/dev/null; cat %s.pub", path, path))
	w.On(t, "h1", "sh", "-c", fmt.Sprintf("echo '%s %s' >> /etc/signerd/authorized_keys && systemctl reload signerd", options, strings.TrimSpace(public)))
	return path
}

// What cannot be is refused before anything changes, or undone as a whole, with
// a sentence that says what to do.
func TestJoinRefuses(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Signer)
	w.Machine(t, "h2", 12, w.Bare)
	good := w.Join(t)
	with := func(more ...string) []string { return append(good[:len(good):len(good)], more...) }
	enter := func(script string) func() error {
		return func() error {
			_, err := w.Bed.Exec("h2", "sh", "-c", script)
			return err
		}
	}
	onlyAsks := w.key(t, "h2", `permit="get-*"`)
	w.On(t, "h2", "mv", onlyAsks, "/root/.ssh/only-asks")
	w.On(t, "h2", "rm", onlyAsks+".pub")
	expired := w.key(t, "h2", `permit="get-*,etcd-*",expiry-time="20200101Z"`)
	const pin = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	w.refuse(t, "h2", []refusal{
		{what: "another host key", args: []string{fleet.Setup, "join", "--signer-ip=" + w.Bed.Address(11), "--signer-fingerprint=" + pin}, code: 77,
			says: []string{"not the pinned " + pin, "another machine answers there"}},
		{what: "no pin and no terminal", args: []string{fleet.Setup, "join", "--signer-ip", w.Bed.Address(11)}, code: 77,
			says: []string{"is unknown", "--signer-fingerprint SHA256:"}},
		{what: "a pin that is none", args: []string{fleet.Setup, "join", "--signer-ip=" + w.Bed.Address(11), "--signer-fingerprint=12:34"}, code: 64,
			says: []string{"is not a fingerprint as ssh-keygen -l prints it"}},
		{what: "another CA", args: with("--ca-fingerprint=" + strings.Repeat("ab", 32)), code: 77,
			says: []string{"none of --ca-fingerprint", "another cluster"}},
		{what: "a CA pin that is none", args: with("--ca-fingerprint=abc"), code: 64, says: []string{"64 hex digits"}},
		{what: "another cluster", args: with("--cluster=staging"), code: 78, says: []string{"signs for the cluster prod-a, not staging"}},
		{what: "a clock that is an hour off", args: good, code: 78, says: []string{"this machine's clock says", "the signer's says", "timedatectl"},
			first: func() error { return w.Bed.Skew("h2", time.Hour) }, then: func() error { return w.Bed.Skew("h2", 0) }},
		{what: "an address that is not ours", args: with("--address=10.99.0.1"), code: 78, says: []string{"10.99.0.1 is not an address of this machine, which has", w.Bed.Address(12)}},
		{what: "an address of another member", args: with("--address=" + w.Bed.Address(12) + "," + w.Bed.Address(11)), code: 78,
			says: []string{"the address " + w.Bed.Address(11) + " belongs to the member etcd-h1", "remove"}},
		{what: "a name that is taken", args: with("--name=etcd-h1"), code: 78, says: []string{"the name etcd-h1 belongs to a member at " + w.Bed.Address(11), "give --name"}},
		{what: "a name that is none", args: with("--name=h2"), code: 64, says: []string{"give --name etcd-ID"}},
		{what: "a port that is taken", args: good, code: 78, says: []string{w.Bed.Address(12) + ":2380", "address already in use", "ss -ltnp"},
			first: enter(`systemd-run -q --unit=taker perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 2380) or die; sleep 600'; sleep 0.5`),
			then:  enter("systemctl stop taker")},
		{what: "nobody there", args: []string{fleet.Setup, "join", "--signer-ip=" + w.Bed.Address(77)}, code: 69, says: []string{"the signer cannot be reached", "is its address right"}},
		{what: "a port where nobody is", args: []string{fleet.Setup, "join", "--signer-ip=" + w.Bed.Address(11) + ":2222"}, code: 69, says: []string{"connection refused", "does signerd run there"}},
		{what: "an address with a bad port", args: []string{fleet.Setup, "join", "--signer-ip=" + w.Bed.Address(11) + ":x"}, code: 64, says: []string{"has no port number"}},
		{what: "no address", args: []string{fleet.Setup, "join"}, code: 64, says: []string{"join needs --signer-ip ADDRESS"}},
		{what: "a key that may only ask", args: with("--identity=/root/.ssh/only-asks"), code: 77,
			says: []string{"may not ask for etcd-h2=" + w.Bed.Address(12), "everything was undone"}},
		{what: "a key that is expired", args: with("--identity=" + expired), code: 77, says: []string{"does not admit this key", "expiry-time="}},
		{what: "a key that is not there", args: with("--identity=/root/none"), code: 78, says: []string{"--identity: ", "no such file"}},
		{what: "an etcd that is too old", args: good, code: 78, says: []string{"is etcd 3.4.23, and 3.5.0 or later is needed", "upgrade it"},
			first: enter(`mv /usr/local/bin/etcd /usr/local/bin/etcd.new && printf '#!/bin/sh\necho etcd Version: 3.4.23\n' >/usr/local/bin/etcd && chmod 755 /usr/local/bin/etcd`),
			then:  enter("mv /usr/local/bin/etcd.new /usr/local/bin/etcd")},
		{what: "no etcd", args: good, code: 78, says: []string{"etcd is missing: install it"},
			first: enter("mv /usr/local/bin/etcd /usr/local/bin/etcd.new"), then: enter("mv /usr/local/bin/etcd.new /usr/local/bin/etcd")},
		{what: "data that nobody can explain", args: good, code: 78, says: []string{"data of etcd in [/var/lib/etcd/default]", "move it away"},
			first: enter("mkdir -p /var/lib/etcd/default/member"), then: enter("rm -r /var/lib/etcd/default")},
		{what: "two problems at once", args: with("--cluster=staging", "--name=etcd-h1"), code: 78, says: []string{"not staging", "the name etcd-h1 belongs"}},
		{what: "one of the machine's, and one of the signer's", args: with("--cluster=staging"), code: 78, says: []string{"etcd is missing: install it", "not staging"},
			first: enter("mv /usr/local/bin/etcd /usr/local/bin/etcd.new"), then: enter("mv /usr/local/bin/etcd.new /usr/local/bin/etcd")},
		{what: "an option that is none, and one of the machine's", args: with("--ca-fingerprint=abc"), code: 64, says: []string{"64 hex digits", "etcd is missing: install it"},
			first: enter("mv /usr/local/bin/etcd /usr/local/bin/etcd.new"), then: enter("mv /usr/local/bin/etcd.new /usr/local/bin/etcd")},
	})
	if voters, others := w.Members(t, "h1"); len(voters) != 1 || len(others) != 0 {
		t.Errorf("after all refusals the members are %v and %v", voters, others)
	}
	if out := w.On(t, "h2", append(good, "--dry-run")...); !strings.Contains(out, "[ 9/9]") {
		t.Errorf("the dry run says %s", out)
	}
	w.On(t, "h2", good...) // the valid neighbour
	if voters, others := w.Members(t, "h1"); len(voters) != 2 || len(others) != 0 {
		t.Errorf("after the join the members are %v and %v", voters, others)
	}
}

// What stands in the way of a first machine is told at once, and nothing was
// changed.
func TestInitRefuses(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Bare)
	enter := func(script string) func() error {
		return func() error {
			_, err := w.Bed.Exec("h1", "sh", "-c", script)
			return err
		}
	}
	const recipient = "age12phkzssndd5axajas2h74vtge62c86xjhd6u9anyanqhzvdg6sps0xthgl" // of age's own tests
	w.refuse(t, "h1", []refusal{
		{what: "sshd on port 22", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"the signer cannot listen on :22", "--listen :2222", "sshd_config"},
			first: enter("systemctl start ssh"), then: enter("systemctl stop ssh")},
		{what: "no keys", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"nobody could ask the signer", "--authorize FILE"},
			first: enter("mv /root/.ssh/authorized_keys /root/.ssh/away"), then: enter("mv /root/.ssh/away /root/.ssh/authorized_keys")},
		{what: "keys that do not parse", args: []string{fleet.Setup, "init", "--authorize=/root/bad"}, code: 78, says: []string{"/root/bad:1", "--authorize FILE"},
			first: enter("echo 'permit=x ssh-ed25519 AAAA' > /root/bad"), then: enter("rm /root/bad")},
		{what: "a cluster id that is none", args: []string{fleet.Setup, "init", "--cluster=Prod_A"}, code: 64, says: []string{"--cluster: "}},
		{what: "a kind of key that is none", args: []string{fleet.Setup, "init", "--key=rsa"}, code: 64, says: []string{"--key is p256 or p384"}},
		{what: "a recipient that is none", args: []string{fleet.Setup, "init", "--backup-recipient=me"}, code: 64, says: []string{"--backup-recipient: ", "neither an age recipient"}},
		{what: "a file where the backup is to be", args: []string{fleet.Setup, "init", "--backup-recipient=" + recipient}, code: 78, says: []string{"/root/signerd-etcd.age is there already", "move it away"},
			first: enter("touch /root/signerd-etcd.age"), then: enter("rm /root/signerd-etcd.age")},
		{what: "a CA that is there", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"this machine has a CA, and a CA is never replaced", "move it away"},
			first: enter("mkdir /var/lib/signerd/authority && touch /var/lib/signerd/authority/state.json"), then: enter("rm -r /var/lib/signerd/authority")},
		{what: "an older system's CA", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"/etc/etcd/pki/ca.key is there already", "/usr/share/doc/signerd/runbook.md says how to take over"},
			first: enter("mkdir -p /etc/etcd/pki && touch /etc/etcd/pki/ca.key"), then: enter("rm -r /etc/etcd")},
		{what: "a list of keys that is there", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"/etc/signerd/authorized_keys is there already", "--authorize FILE"},
			first: enter("touch /etc/signerd/authorized_keys"), then: enter("rm /etc/signerd/authorized_keys")},
		{what: "an etcd that is masked", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"systemctl unmask etcd"},
			first: enter("systemctl -q mask etcd"), then: enter("systemctl -q unmask etcd")},
		{what: "an option that is none", args: []string{fleet.Setup, "init", "--signer-ip=1"}, code: 64, says: []string{"unknown flag"}},
		{what: "a word too many", args: []string{fleet.Setup, "init", "prod-a"}, code: 64, says: []string{"one word too many"}},
	})
	old := `mkdir /tmp/old && printf '#!/bin/sh\necho etcd Version: 3.6.0\n' >/tmp/old/etcd && chmod 755 /tmp/old/etcd && mount --bind /tmp/old/etcd /usr/local/bin/etcd`
	if out := w.On(t, "h1", "sh", "-c", old+" && "+fleet.Setup+" init --dry-run; umount /usr/local/bin/etcd"); !strings.Contains(out, "warning: etcd 3.6.0 has known security holes that 3.6.14 closes") || !strings.Contains(out, "[11/11]") {
		t.Errorf("an etcd with known holes: %s", out)
	}
	w.On(t, "h1", fleet.Setup, "init", "--cluster="+cluster, "--key=p384", "--listen="+w.Bed.Address(11)+":2222")
	if out, err := w.SSH(t, "", "-p", "2222", "get-peers"); err != nil || !strings.Contains(out, "https://"+w.Bed.Address(11)+":2379") {
		t.Errorf("get-peers on the other port: %q, %v", out, err)
	}
}

// Data that the distribution's package began by itself, and nobody used, goes
// aside; what somebody used does not.
func TestDistributionsEtcd(t *testing.T) {
	w := here(t)
	deb := download(t, "etcd-server")
	w.Machine(t, "h1", 11, w.Bare)
	if err := w.Bed.Push("h1", deb, "/var/tmp/etcd.deb"); err != nil {
		t.Fatal(err)
	}
	w.On(t, "h1", "mv", "/usr/local/bin/etcd", "/var/tmp/etcd")
	w.On(t, "h1", "dpkg", "--install", "--force-depends", "/var/tmp/etcd.deb")
	w.refuse(t, "h1", []refusal{{what: "its own version", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"/usr/bin/etcd is etcd 3.4", "3.5.0 or later is needed"}}})
	// As a newer distribution has it.
	w.On(t, "h1", "sh", "-c", "systemctl stop etcd; rm -rf /var/lib/etcd && install -d -o etcd -g etcd -m 700 /var/lib/etcd && cp /var/tmp/etcd /usr/bin/etcd && sync && "+
		"systemctl -q enable --now etcd && etcdctl --endpoints=http://127.0.0.1:2379 put somebody uses-it")
	w.refuse(t, "h1", []refusal{{what: "data that somebody uses", args: []string{fleet.Setup, "init"}, code: 78, says: []string{"it has 1 keys", "if it is of no use, stop it and move its data away"}}})
	w.On(t, "h1", "etcdctl", "--endpoints=http://127.0.0.1:2379", "del", "somebody")
	out := w.On(t, "h1", fleet.Setup, "init", "--cluster="+cluster)
	if !strings.Contains(out, "/var/lib/etcd/default.before-signerd") {
		t.Errorf("it does not say where the data went: %s", out)
	}
	w.On(t, "h1", "test", "-d", "/var/lib/etcd/default.before-signerd/member")
	w.On(t, "h1", "test", "-f", "/etc/default/etcd.before-signerd")
	w.cutPower(t, "h1")
	if voters, others := w.Members(t, "h1"); len(voters) != 1 || len(others) != 0 {
		t.Errorf("the members are %v and %v", voters, others)
	}
}

// download gives a package of Debian's.
func download(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name)
	cmd.Dir = dir
	if err := ran(cmd); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	return found[0]
}

// A machine that is cut off in the middle of its join leaves nothing behind, and
// the same command finishes when the network is back.
func TestPartitionDuringJoin(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Signer)
	for name, what := range map[string]string{"h2": "with its certificate", "h3": "with etcd on its way"} {
		t.Run(what, func(t *testing.T) {
			w.Machine(t, name, 12, w.Bare)
			before := w.state(t, name)
			args := w.Join(t)
			r := w.begin(t, name, "after-7", args...) // it has met the others
			if !w.stopped(t, name, r) {
				t.Fatal("it ended before")
			}
			goOn := func() {
				if _, err := w.Bed.Enter(name, "pkill", "-CONT", "-x", "first-boot"); err != nil {
					t.Fatal(err)
				}
			}
			if name == "h3" {
				w.On(t, "h1", "systemctl", "stop", "signerd") // nobody promotes it
				goOn()
				fleet.Eventually(t, time.Minute, "its etcd has data", func() error {
					_, err := w.Bed.Exec(name, "test", "-d", "/var/lib/etcd/prod-a.etcd/member/wal")
					return err
				})
			}
			if err := w.Bed.Cut(name, "all"); err != nil {
				t.Fatal(err)
			}
			if name == "h3" {
				w.On(t, "h1", "systemctl", "start", "signerd")
			} else {
				goOn()
			}
			if err := <-r.done; lab.ExitCode(err) != 69 || !strings.Contains(r.output.String(), "it could not be undone") || !strings.Contains(r.output.String(), "run this again") {
				t.Errorf("cut off it ended with %v\n%s", err, r.output.String())
			}
			// signerd gives it up by itself: no ghost stays, and its name is free.
			fleet.Eventually(t, 2*time.Minute, "the learner is gone", func() error {
				if voters, others := w.Members(t, "h1"); len(voters) != 1 || len(others) != 0 {
					return fmt.Errorf("the members are %v and %v", voters, others)
				}
				if out := w.On(t, "h1", "sh", "-c", "signerd ledger show --name etcd-"+name); !strings.Contains(out, "release") {
					return fmt.Errorf("its name is held:\n%s", out)
				}
				return nil
			})
			if err := w.Bed.Heal(name, "all"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Bed.Exec(name, append(args, "--ca-fingerprint="+strings.Repeat("0", 64))...); lab.ExitCode(err) != 77 {
				t.Errorf("with another CA it ended with %v", err)
			}
			if after := w.state(t, name); after != before {
				t.Errorf("it was not undone:\n%s\n%s", before, after)
			}
			w.again(t, name, args...)
			if voters, others := w.Members(t, "h1"); len(voters) != 2 || len(others) != 0 {
				t.Errorf("the members are %v and %v", voters, others)
			}
			fleet.Eventually(t, time.Minute, name+" is removed", func() error {
				_, err := w.SSH(t, "", "remove", "etcd-"+name)
				return err
			})
		})
	}
}

// A join that is undone gives the distribution's etcd back as it was.
func TestUndoGivesBack(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Signer)
	w.Machine(t, "h2", 12, w.Bare)
	onlyAsks := w.key(t, "h2", `permit="get-*"`)
	w.packaged(t, "h2")
	before := w.packagedState(t, "h2")
	if _, err := w.Bed.Exec("h2", w.Join(t, "--identity="+onlyAsks)...); lab.ExitCode(err) != 77 || !strings.Contains(err.Error(), "everything was undone") {
		t.Errorf("a key that may not join: %v", err)
	}
	w.isBack(t, "h2", before)
	w.On(t, "h2", w.Join(t)...)
	w.On(t, "h2", "test", "-d", "/var/lib/etcd/default.before-signerd/member")
	if voters, others := w.Members(t, "h2"); len(voters) != 2 || len(others) != 0 {
		t.Errorf("the members are %v and %v", voters, others)
	}
}

// packaged lets an etcd run as a distribution's package starts it: plain, on
// loopback, with data of its own and no keys.
func (w *world) packaged(t *testing.T, name string) {
	t.Helper()
	w.On(t, name, "sh", "-c", "printf 'ETCD_NAME=mine\\n' > /etc/default/etcd && install -d -o etcd -g etcd -m 700 /var/lib/etcd && "+
		"printf '[Service]\\nType=notify\\nUser=etcd\\nEnvironment=ETCD_DATA_DIR=/var/lib/etcd/default\\nEnvironmentFile=/etc/default/etcd\\nExecStart=/usr/local/bin/etcd\\n[Install]\\nWantedBy=multi-user.target\\n' "+
		"> /etc/systemd/system/etcd.service && systemctl daemon-reload && systemctl -q enable --now etcd && sync")
}

// packagedState is all of it that a join which was undone must give back.
func (w *world) packagedState(t *testing.T, name string) string {
	t.Helper()
	return w.On(t, name, "sh", "-c", "ls -A /var/lib/etcd /etc/etcd /etc/etcd/pki /etc/signerd /var/lib/signerd-first-boot 2>/dev/null; cat /etc/default/etcd /etc/systemd/system/etcd.service; systemctl is-enabled etcd; etcdctl member list")
}

// isBack waits until a host is in a state again, but for directories that are
// empty.
func (w *world) isBack(t *testing.T, name, before string) {
	t.Helper()
	fleet.Eventually(t, time.Minute, "the distribution's etcd is back", func() error {
		if after := w.packagedState(t, name); strings.ReplaceAll(after, "/etc/etcd:\npki\n\n/etc/etcd/pki:\n\n", "") != before {
			return fmt.Errorf("it is\n%s\nand was\n%s", after, before)
		}
		return nil
	})
}
