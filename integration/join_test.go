package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
)

// A member joins as a learner, is promoted, moves and is removed, and the
// signer says at each point what is so.
func TestJoin(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	csr := read(t, l.Path("kubemaster-01.csr"))
	from := func(n int) string { return l.Address(10 + n) }

	refused(t, l, 77, "each address must be the source's", csr, "etcd-2="+from(2))
	m, err := l.JoinMember(2)
	if err != nil {
		t.Fatal(err)
	}
	// Until it votes it takes its own join back, and nobody else's.
	back := func(name string) error {
		_, err := l.SSHWith("", "-i", filepath.Join(m.Dir, "member.key"), "signer@keyless", "remove", name)
		return err
	}
	if err := back("etcd-1"); lab.ExitCode(err) != 77 {
		t.Errorf("a member removes another one: %v", err)
	}
	if err := back("etcd-2"); err != nil {
		t.Errorf("a member takes its join back: %v", err)
	}
	if got := ssh(t, l, "", "get-topology"); strings.Contains(got, "etcd-2") {
		t.Errorf("after it took its join back get-topology is %q", got)
	}
	eventually(t, 10*time.Second, "it joins anew", func() bool { // etcd derives the new id from the second
		m, err = l.JoinMember(2)
		return err == nil
	})
	topology := fmt.Sprintf("etcd-1=https://%s:2380,etcd-2=https://%s:2380", from(1), from(2))
	got := strings.TrimSpace(ssh(t, l, "", "get-topology"))
	if parts := strings.Split(got, ","); len(parts) != 2 || !strings.Contains(got, "etcd-2=https://"+from(2)) {
		t.Errorf("with a learner that has not started get-topology is %q, want %q in any order", got, topology)
	}
	if got := ssh(t, l, "", "get-peers"); strings.Contains(got, from(2)) {
		t.Errorf("a learner is among the peers: %q", got)
	}
	bind := func(n int) string { return "-b" + from(n) }
	if _, err := l.SSHWith(csr, bind(3), "signer@leader", "etcd-3="+from(3)); lab.ExitCode(err) != 75 || !strings.Contains(err.Error(), "etcd-2 is joining") {
		t.Errorf("a second join at once: %v", err)
	}
	if _, err := l.SSHWith(csr, bind(2), "signer@leader", "etcd-3="+from(2)); lab.ExitCode(err) != 77 || !strings.Contains(err.Error(), "belongs to the member etcd-2") {
		t.Errorf("a join with another's address: %v", err)
	}
	if err := l.StartEtcd(m, got); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "etcd-2 votes", func() bool {
		return strings.Contains(ssh(t, l, "", "get-peers"), "https://"+from(2)+":2379\n")
	})
	if _, err := l.Ctl("kubemaster-01", "put", "a", "b"); err != nil {
		t.Error(err)
	}

	if err := back("etcd-2"); lab.ExitCode(err) != 77 || !strings.Contains(err.Error(), "votes already") {
		t.Errorf("a member that votes removes itself: %v", err)
	}

	// It renews from wherever its key is, and moves only from its new address.
	own := []string{"-i", filepath.Join(m.Dir, "member.key"), "signer@keyless", "etcd-2=" + from(2)}
	memberCSR, err := l.Run("", "openssl", "req", "-new", "-key", filepath.Join(m.Dir, "member.key"), "-subj", "/CN=x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.SSHWith(memberCSR, own...); err != nil {
		t.Errorf("a renewal by the member's own key: %v", err)
	}
	moved := []string{"-b", from(4), "signer@leader", "etcd-2=" + from(4)}
	if _, err := l.SSHWith(memberCSR, moved...); err != nil {
		t.Errorf("a move: %v", err)
	}
	if got := ssh(t, l, "", "get-topology"); !strings.Contains(got, "etcd-2=https://"+from(4)+":2380") {
		t.Errorf("after the move get-topology is %q", got)
	}
	moved[1], moved[3] = from(2), "etcd-2="+from(2)
	if _, err := l.SSHWith(memberCSR, moved...); err != nil {
		t.Errorf("the move back: %v", err)
	}
	// The name is the key's: a stranger neither moves nor replaces the member.
	if _, err := l.SSHWith(csr, moved...); lab.ExitCode(err) != 77 {
		t.Errorf("another key for the name: %v", err)
	}

	// Nor does it once nobody holds the name: the member is still there.
	ssh(t, l, "", "release", "etcd-2")
	stranger := []string{"-b", from(5), "signer@leader", "etcd-2=" + from(5)}
	if _, err := l.SSHWith(csr, stranger...); lab.ExitCode(err) != 77 || !strings.Contains(err.Error(), "etcd-2 is a member at https://"+from(2)) {
		t.Errorf("a stranger moves a member whose name is released: %v", err)
	}
	if _, err := l.SSHWith(memberCSR, moved...); err != nil {
		t.Errorf("the member itself, from its own address: %v", err)
	}

	eventually(t, 30*time.Second, "etcd-2 is removed", func() bool {
		_, err := l.SSH("", "remove", "etcd-2")
		return err == nil
	})
	if got := ssh(t, l, "", "get-topology"); strings.Contains(got, "etcd-2") {
		t.Errorf("after the removal get-topology is %q", got)
	}
	refused(t, l, 75, "last member that votes", "", "remove", "etcd-1")
	if _, err := l.SSHWith(memberCSR, own...); lab.ExitCode(err) != 255 {
		t.Errorf("the key of a removed member: %v", err)
	}
	if _, err := l.Ctl("kubemaster-01", "put", "a", "c"); err != nil {
		t.Error(err)
	}
}

// With etcd's authentication on, signerd is a user with the root role; without
// it, the journal says what to type.
func TestRBAC(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	const admin = "kubemaster-admin"
	newClient(t, l, admin)
	newClient(t, l, "kubemaster-01")
	for _, args := range [][]string{
		{"role", "add", "root"}, {"user", "add", "root", "--no-password"}, {"user", "grant-role", "root", "root"},
		{"user", "add", admin, "--no-password"}, {"user", "grant-role", admin, "root"}, {"auth", "enable"},
	} {
		if _, err := l.Ctl(admin, args...); err != nil && args[0] != "role" {
			t.Fatal(err)
		}
	}
	if _, err := l.JoinMember(2); lab.ExitCode(err) != 75 {
		t.Errorf("a join without the user signerd: %v", err)
	}
	eventually(t, 15*time.Second, "the journal says what to type", func() bool {
		return strings.Contains(read(t, l.Path("signerd.log")), "etcdctl user add signerd --no-password; etcdctl user grant-role signerd root")
	})
	if _, err := l.Ctl("kubemaster-01", "put", "a", "b"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a client without a role writes: %v", err)
	}
	for _, args := range [][]string{{"user", "add", "signerd", "--no-password"}, {"user", "grant-role", "signerd", "root"}} {
		if _, err := l.Ctl(admin, args...); err != nil {
			t.Fatal(err)
		}
	}
	m, err := l.JoinMember(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, strings.TrimSpace(ssh(t, l, "", "get-topology"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "etcd-2 votes", func() bool { return strings.Count(ssh(t, l, "", "get-peers"), "\n") == 2 })
}
