package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// The statuses of the contract, and the order of checks: grammar, permission,
// names, request, hold.
func TestStatuses(t *testing.T) {
	operator, node, wide := newKey(t), newKey(t), newKey(t)
	b := newBench(t,
		line(`permit="get-*,*,etcd-*,release *,remove *,rotate *"`, operator),
		line(`permit="get-*,kubemaster-07"`, node),
		line(`permit="get-*,kubemaster-*,etcd-*"`, wide))
	csr, other := request(newCertKey()), request(newCertKey())
	for _, test := range []struct {
		key     ssh.Signer
		command string
		stdin   string
		status  int
		text    string // in stdout, or in stderr
	}{
		{node, "help", "", 0, "get-certificate"},
		{node, "--help", "", 0, "get-certificate"},
		{node, "", "", 64, "get-certificate"},
		{node, "   ", "", 64, "get-certificate"},
		{node, "get-certificate", "", 0, "BEGIN CERTIFICATE"},
		{node, "get-peers", "", 75, "cannot use etcd"},
		{node, "get-topology", "", 75, "cannot use etcd"},
		{node, "get-nothing", "", 64, "ask for help"},
		{node, "kube_master", csr, 2, "host name"},
		{node, "kubemaster-08", csr, 77, "may not ask"},
		{node, "root", csr, 77, "may not ask"}, // permission is before names
		{operator, "root", csr, 2, "reserved"},
		{operator, "worker-01", csr, 2, "does not match"},
		{operator, "worker-01", "junk", 2, "does not match"}, // names are before the request
		{operator, "etcd-1", csr, 2, "etcd-1=ADDRESS"},
		{node, "kubemaster-08", "junk", 77, "may not ask"},
		{node, "kubemaster-07", "junk", 3, "PKCS #10"},
		{node, "kubemaster-07", "", 3, "empty"},
		{node, "kubemaster-07", strings.Repeat("A", wire.MaxRequest+1), 3, "longer"},
		{node, "kubemaster-07", csr, 0, "BEGIN CERTIFICATE"},
		{node, "KubeMaster-07", csr, 0, "BEGIN CERTIFICATE"},
		{wide, "kubemaster-07", other, 77, "held by another key until"},
		{wide, "kubemaster-07", "junk", 3, "PKCS #10"}, // the request is before the hold
		{wide, "kubemaster-07", csr, 0, "BEGIN CERTIFICATE"},
		{wide, "etcd-2=10.0.0.12", csr, 77, "each address must be the source's"},
		{wide, "etcd-2=127.0.0.1", csr, 75, "cannot use etcd"},
		{node, "etcd-2=127.0.0.1", csr, 77, "may not ask"},
		{node, "release kubemaster-07", "", 77, "may not ask"},
		{operator, "release kubemaster-07", "", 0, "released kubemaster-07"},
		{operator, "release kubemaster-07", "", 0, "nobody held"},
		{wide, "kubemaster-07", other, 0, "BEGIN CERTIFICATE"},
		{node, "kubemaster-07", csr, 0, "BEGIN CERTIFICATE"}, // its literal line supersedes
		{wide, "kubemaster-07", other, 77, "held by another key"},
		{operator, "remove etcd-2", "", 75, "cannot use etcd"},
		{operator, "remove kubemaster-07", "", 64, "unknown command"},
		{operator, "rotate prepare", "", 75, "cannot use etcd"},
		{operator, "rotate retire", "", 75, "begins with rotate prepare"},
		{operator, "rotate prepare --from", "", 77, "may not ask"},
		{operator, "rotate", "", 64, "needs one word"},
		{operator, strings.Repeat("x", wire.MaxCommand+1), "", 64, "more than 512"},
		{operator, "kubemaster-01\nhelp", "", 64, "control"},
	} {
		a := b.ask(test.key, test.command, test.stdin)
		text := a.stdout
		if a.status != 0 {
			text = a.stderr
		}
		if a.status != test.status || !strings.Contains(text, test.text) {
			t.Errorf("%.40q: status %d, %q; want %d and %q", test.command, a.status, text, test.status, test.text)
		}
	}
}

func TestForcedCommand(t *testing.T) {
	forced := newKey(t)
	b := newBench(t, line(`command="get-certificate"`, forced))
	for _, command := range []string{"", "help", "kubemaster-01", "nonsense"} {
		if a := b.ask(forced, command, ""); a.status != 0 || !strings.Contains(a.stdout, "BEGIN CERTIFICATE") {
			t.Errorf("%q: %+v", command, a)
		}
	}
}

func TestStatusAnswer(t *testing.T) {
	node, operator := newKey(t), newKey(t)
	b := newBench(t, line(`permit="get-*,kubemaster-07"`, node), line(`permit="get-*,release kubemaster-*"`, operator))
	if a := b.ask(node, "kubemaster-07", request(newCertKey())); a.status != 0 {
		t.Fatalf("%+v", a)
	}
	for _, test := range []struct {
		key   ssh.Signer
		names int
	}{{node, 0}, {operator, 1}} {
		a := b.ask(test.key, "get-status", "")
		var s wire.ClusterStatus
		if err := json.Unmarshal([]byte(a.stdout), &s); err != nil || a.status != 0 {
			t.Fatalf("%+v: %v", a, err)
		}
		if s.Cluster != "prod-a" || len(s.Generations) != 1 || s.Generations[0].Role != string(signer.Active) || time.Since(s.Time).Abs() > time.Minute || len(s.Generations[0].Fingerprint) != 64 ||
			s.Members == nil || len(s.Names) != test.names {
			t.Errorf("%s", a.stdout)
		}
		if !strings.Contains(a.stderr, "etcd is away") {
			t.Errorf("stderr is %q", a.stderr)
		}
	}
}

// The user is signer, whoever asks.
func TestOtherUsersAreRefused(t *testing.T) {
	key := newKey(t)
	b := newBench(t, line("", key))
	for _, user := range []string{"root", "Signer", "", "signer "} {
		if client, err := b.dial(user, key); err == nil {
			_ = client.Close()
			t.Errorf("the user %q is let in", user)
		}
	}
}

// A security key must be touched, unless its line says otherwise.
func TestTouch(t *testing.T) {
	strict, lenient := newKey(t), newKey(t)
	b := newBench(t, line("", strict), line("no-touch-required", lenient))
	for _, test := range []struct {
		key  ssh.Signer
		want bool
	}{{strict, false}, {lenient, true}} {
		admission := must(b.desk.Admit(sshfront.Login{Source: netip.MustParseAddr("127.0.0.1"), Key: test.key.PublicKey()}))
		if admission.NoTouchRequired != test.want {
			t.Errorf("no touch required: %v, want %v", admission.NoTouchRequired, test.want)
		}
	}
}

// A reload counts for the next login.
func TestSetKeys(t *testing.T) {
	key := newKey(t)
	b := newBench(t)
	if _, err := b.dial("signer", key); err == nil {
		t.Fatal("nobody is authorized, and the key is let in")
	}
	b.authorize(line("", key))
	if a := b.ask(key, "help", ""); a.status != 0 {
		t.Errorf("%+v", a)
	}
}

// A panic is the answer 70 to one client, and the journal has the rest.
func TestPanic(t *testing.T) {
	key := newKey(t)
	b := newBench(t, line("", key))
	saved := handlers[wire.GetTopology]
	handlers[wire.GetTopology] = func(context.Context, *caller, wire.Command, sshfront.Stdin) (wire.Answer, error) { panic("secret") }
	defer func() { handlers[wire.GetTopology] = saved }()
	a := b.ask(key, "get-topology", "")
	if a.status != 70 || strings.Contains(a.stderr, "secret") {
		t.Errorf("%+v", a)
	}
	if a := b.ask(key, "help", ""); a.status != 0 {
		t.Errorf("after the panic: %+v", a)
	}
}

// public lets out only what the table has.
func TestPublic(t *testing.T) {
	for _, test := range []struct {
		err    error
		status wire.Status
		text   string
	}{
		{fmt.Errorf("%w: disk /var/lib on fire", signer.ErrUnrecorded), wire.Retry, "cannot write its ledger"},
		{fmt.Errorf("%w: dial tcp 10.0.0.1", peers.ErrAway), wire.Retry, "cannot use etcd"},
		{fmt.Errorf("%w: a until tomorrow", signer.ErrHeld), wire.Denied, "a until tomorrow"},
		{fmt.Errorf("%w: %w", signer.ErrRetry, errors.Join(rotation.ErrSuperseded, errors.New("write: no space"))), wire.Retry, "another signer took over; write: no space"},
		{errors.New("nil pointer"), wire.Internal, ""},
	} {
		err := public(test.err)
		if wire.StatusOf(err) != test.status {
			t.Errorf("%v: status %d", test.err, wire.StatusOf(err))
		}
		if e, ok := errors.AsType[*wire.Error](err); ok && (!strings.Contains(e.Text, test.text) || strings.Contains(e.Text, "\n") || strings.Contains(e.Text, "/var") || strings.Contains(e.Text, "dial")) {
			t.Errorf("%v: the client reads %q", test.err, e.Text)
		}
	}
}
