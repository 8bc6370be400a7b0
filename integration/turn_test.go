package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/peers"
)

// connect is a member's connection to its cluster.
func connect(t *testing.T, l *lab.Lab, certificate string) *peers.Cluster {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(l.Path(certificate+".crt"), l.Path(certificate+".key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, l.Path("ca.crt"))))
	c, err := peers.Connect([]string{"https://" + l.Address(11) + ":2379"}, peers.Credentials{
		Roots: func() *x509.CertPool { return roots }, Certificate: func(context.Context) (*tls.Certificate, error) { return &pair, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// One member at most has the turn to restart, and who lost it is told; the cluster
// can do without a member only while all others are well.
func TestTurns(t *testing.T) {
	l := newCluster(t, "")
	for i, n := range []int{2, 3} {
		var m *lab.Member
		eventually(t, 30*time.Second, "a member is let in", func() bool { // etcd takes 5 s to count on the one before
			var err error
			m, err = l.JoinMember(n)
			return err == nil
		})
		if err := l.StartEtcd(m, strings.TrimSpace(ssh(t, l, "", "get-topology"))); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, m.Name+" votes", func() bool { return strings.Count(ssh(t, l, "", "get-peers"), "\n") == i+2 })
	}
	ctx := t.Context()
	one, other := connect(t, l, "etcd-1/member"), connect(t, l, "etcd-2/member")
	turn, err := one.TakeTurn(ctx, time.Now(), "etcd-1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := other.TakeTurn(ctx, time.Now(), "etcd-2"); !errors.Is(err, peers.ErrBusy) || !strings.Contains(err.Error(), "etcd-1 has the turn") {
			t.Errorf("a second turn: %v", err)
		}
	}
	if err := turn.Hold(ctx); err != nil || !turn.Fresh() {
		t.Errorf("a turn that is held: %v", err)
	}
	if err := turn.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if err := turn.Release(ctx); err != nil {
		t.Errorf("released twice: %v", err)
	}
	next, err := other.TakeTurn(ctx, time.Now(), "etcd-2")
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.Hold(ctx); !errors.Is(err, peers.ErrBusy) || !strings.Contains(err.Error(), "ran out") {
		t.Errorf("a turn that was lost: %v", err)
	}
	if err := next.Release(ctx); err != nil {
		t.Fatal(err)
	}

	for _, without := range []string{"", "etcd-1", "etcd-3"} {
		eventually(t, 30*time.Second, "all are well", func() bool { return one.Steady(ctx, without) == nil })
	}
	l.Members["etcd-3"].Process.Kill()
	eventually(t, 30*time.Second, "the others are well without etcd-3", func() bool { return one.Steady(ctx, "etcd-3") == nil })
	for _, without := range []string{"", "etcd-1"} {
		if err := one.Steady(ctx, without); !errors.Is(err, peers.ErrBusy) || !strings.Contains(err.Error(), "etcd-3: ") {
			t.Errorf("without %q while etcd-3 is off: %v", without, err)
		}
	}
}

// With authentication on, a member needs one key and no more; without it, it is
// told what is missing.
func TestTurnWithAuthentication(t *testing.T) {
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	member := connect(t, l, "etcd-1/member")
	for _, args := range [][]string{
		{"user", "add", "root", "--no-password"}, {"user", "grant-role", "root", "root"},
		{"user", "add", "signerd", "--no-password"}, {"user", "grant-role", "signerd", "root"},
		{"user", "add", "kubemaster-01", "--no-password"}, {"user", "grant-role", "kubemaster-01", "root"},
		{"role", "add", "signerd-member"}, {"role", "grant-permission", "signerd-member", "readwrite", "/signerd/restart"},
		{"auth", "enable"},
	} {
		if out, err := l.Ctl("kubemaster-01", args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	if _, err := member.TakeTurn(t.Context(), time.Now(), "etcd-1"); !errors.Is(err, peers.ErrAway) || !strings.Contains(err.Error(), "/signerd/restart; signerd(8)") {
		t.Errorf("a member that is no user: %v", err)
	}
	for _, args := range [][]string{{"user", "add", "etcd-1", "--no-password"}, {"user", "grant-role", "etcd-1", "signerd-member"}} {
		if out, err := l.Ctl("kubemaster-01", args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	turn, err := member.TakeTurn(t.Context(), time.Now(), "etcd-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(turn.Hold(t.Context()), member.Steady(t.Context(), "etcd-1"), turn.Release(t.Context())); err != nil {
		t.Error(err)
	}
}
