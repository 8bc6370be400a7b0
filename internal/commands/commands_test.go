package commands

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// bench is a signer behind a real SSH server, with an etcd that is never there.
type bench struct {
	t       testing.TB
	desk    *Desk
	address string
	ahead   atomic.Int64 // of the clock, in nanoseconds
	log     *bytes.Buffer
	limits  sshfront.Limits
}

func newBench(t testing.TB, lines ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	must(signer.CreateAuthority(filepath.Join(dir, "authority"), "prod-a", "p256", time.Now()))
	ledger, _, err := signer.OpenLedger(filepath.Join(dir, "ledger"), signer.LedgerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := signer.New("prod-a", signer.DefaultIdentity("prod-a"), must(signer.LoadAuthority(filepath.Join(dir, "authority"), time.Now())), ledger)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Authority().Bundle())
	cluster := must(peers.Connect([]string{"https://127.0.0.1:1"}, peers.Credentials{Roots: roots, Certificate: NewSelf(s).Certificate}))
	b := &bench{t: t, log: &bytes.Buffer{}, limits: sshfront.Limits(config.DefaultLimits().Front)}
	b.limits.PerSourcePerSecond = 10000
	b.desk = New(s, signer.Clients{must(wire.ParseGlob("kubemaster-*"))}, cluster, nil)
	b.desk.now = func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }
	b.authorize(lines...)
	front := must(sshfront.New(sshfront.Options{
		HostKey: newKey(t), Profile: sshfront.Compatible, Limits: b.limits, Gate: b.desk, Log: zerolog.New(zerolog.SyncWriter(b.log)),
	}))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	b.address = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- front.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(front.Shutdown(t.Context()), <-served, cluster.Close(), ledger.Close()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) authorize(lines ...string) {
	b.desk.SetKeys(must(authkeys.Parse("authorized_keys", []byte(strings.Join(lines, "\n")))))
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return must(ssh.NewSignerFromKey(key))
}

func line(options string, key ssh.Signer) string {
	return strings.TrimSpace(options + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))))
}

func (b *bench) dial(user string, keys ...ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", b.address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
	})
}

type answer struct {
	stdout, stderr string
	status         int
}

func (b *bench) ask(key ssh.Signer, command, stdin string) answer {
	b.t.Helper()
	client, err := b.dial("signer", key)
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	defer client.Close()
	return askOn(b.t, client, command, stdin)
}

func askOn(t testing.TB, client *ssh.Client, command, stdin string) answer {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	defer session.Close()
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if command == "" {
		if err = session.Shell(); err == nil {
			err = session.Wait()
		}
	} else {
		err = session.Run(command)
	}
	a := answer{stdout.String(), stderr.String(), 0}
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		a.status = exit.ExitStatus()
	} else if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if a.status != 0 && a.stdout != "" {
		t.Errorf("%s: status %d with stdout %q", command, a.status, a.stdout)
	}
	if a.status != 0 && strings.TrimSpace(command) != "" && strings.Count(a.stderr, "\n") != 1 {
		t.Errorf("%s: stderr is not one line: %q", command, a.stderr)
	}
	return a
}

func request(key crypto.Signer) string {
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func newCertKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

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
		{operator, "rotate status", "", 64, "not served"},
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
		var s status
		if err := json.Unmarshal([]byte(a.stdout), &s); err != nil || a.status != 0 {
			t.Fatalf("%+v: %v", a, err)
		}
		if s.Cluster != "prod-a" || len(s.Generations) != 1 || s.Generations[0].Role != signer.Active || len(s.Generations[0].Fingerprint) != 64 ||
			s.Members == nil || len(s.Names) != test.names {
			t.Errorf("%s", a.stdout)
		}
		if !strings.Contains(a.stderr, "etcd is away") {
			t.Errorf("stderr is %q", a.stderr)
		}
	}
}

// The key of a live certificate renews its own name, may ask get-*, and nothing
// else; it stops at expiry and at release.
func TestLiveKey(t *testing.T) {
	operator := newKey(t)
	b := newBench(t, line(`permit="get-*,kubemaster-*,release *"`, operator))
	for name, key := range map[string]crypto.Signer{"P-256": newCertKey(), "RSA-2048": must(rsa.GenerateKey(rand.Reader, 2048))} {
		live := must(ssh.NewSignerFromKey(key))
		if _, err := b.dial("signer", live); err == nil {
			t.Fatalf("%s: a key without a certificate is let in", name)
		}
		csr := request(key)
		if a := b.ask(operator, "kubemaster-07", csr); a.status != 0 {
			t.Fatalf("%s: %+v", name, a)
		}
		for _, test := range []struct {
			command, stdin string
			status         int
		}{
			{"get-certificate", "", 0},
			{"help", "", 0},
			{"kubemaster-07", csr, 0},
			{"kubemaster-07", request(newCertKey()), 77}, // with that key only
			{"kubemaster-08", csr, 77},
			{"release kubemaster-07", "", 77},
			{"etcd-1=127.0.0.1", csr, 77},
			{"remove etcd-1", "", 77},
		} {
			if a := b.ask(live, test.command, test.stdin); a.status != test.status {
				t.Errorf("%s: %s: %+v; want %d", name, test.command, a, test.status)
			}
		}
		b.ahead.Store(int64(25 * time.Hour))
		if _, err := b.dial("signer", live); err == nil {
			t.Errorf("%s: the key of an expired certificate is let in", name)
		}
		b.ahead.Store(0)
		// On a connection that is open already the hold counts, not the login.
		client := must(b.dial("signer", live))
		if a := b.ask(operator, "release kubemaster-07", ""); a.status != 0 {
			t.Fatalf("%+v", a)
		}
		if a := askOn(t, client, "kubemaster-07", csr); a.status != 77 {
			t.Errorf("%s: after the release, on a connection from before: %+v", name, a)
		}
		_ = client.Close()
		if _, err := b.dial("signer", live); err == nil {
			t.Errorf("%s: the key of a released name is let in", name)
		}
	}
}

// A key that authorized_keys lists is bound by it, live certificate or not.
func TestListedKeyIsBoundByItsLine(t *testing.T) {
	operator, key := newKey(t), newCertKey()
	live := must(ssh.NewSignerFromKey(key))
	b := newBench(t, line(`permit="kubemaster-*"`, operator), line(`permit="get-peers"`, live))
	if a := b.ask(operator, "kubemaster-07", request(key)); a.status != 0 {
		t.Fatalf("%+v", a)
	}
	if a := b.ask(live, "kubemaster-07", request(key)); a.status != 77 {
		t.Errorf("%+v; want 77", a)
	}
	b.authorize(line(`permit="kubemaster-*"`, operator), line(`expiry-time="20200101Z"`, live))
	if _, err := b.dial("signer", live); err == nil {
		t.Error("a key whose line has expired is let in by its certificate")
	}
}

// A member that is known by its last ledger line renews without etcd, even when
// its certificate has expired.
func TestMemberRenewsWithoutEtcd(t *testing.T) {
	operator, key := newKey(t), newCertKey()
	b := newBench(t, line(`permit="etcd-*,remove *,release *"`, operator))
	address := must(wire.ParseAddress("127.0.0.1"))
	order := signer.Order{
		Subject: must(signer.MemberSubject("etcd-1", []wire.Address{address})),
		Key:     must(signer.PublicKeyOf(key.Public())),
	}
	if _, err := b.desk.signer.Issue(t.Context(), time.Now(), order); err != nil {
		t.Fatal(err)
	}
	live := must(ssh.NewSignerFromKey(key))
	b.ahead.Store(int64(100 * 24 * time.Hour))
	for _, caller := range []ssh.Signer{operator, live} {
		a := b.ask(caller, "etcd-1=127.0.0.1", request(key))
		if a.status != 0 {
			t.Fatalf("%+v", a)
		}
		block, _ := pem.Decode([]byte(a.stdout))
		if c := must(x509.ParseCertificate(block.Bytes)); c.Subject.CommonName != "etcd-1" || c.VerifyHostname("127.0.0.1") != nil {
			t.Errorf("the certificate is for %s", c.Subject)
		}
	}
	if a := b.ask(live, "etcd-1=127.0.0.1,127.0.0.2", request(key)); a.status != 77 {
		t.Errorf("another address by the key itself: %+v", a)
	}
	if a := b.ask(operator, "release etcd-1", ""); a.status != 0 {
		t.Fatalf("%+v", a)
	}
	if _, err := b.dial("signer", live); err == nil {
		t.Error("the key of a released member is let in")
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

// signerd's own certificate is a client's, is made anew when it ages, and the
// ledger has it.
func TestSelf(t *testing.T) {
	b := newBench(t)
	self := NewSelf(b.desk.signer)
	now := time.Now()
	self.now = func() time.Time { return now }
	first := must(self.Certificate(t.Context()))
	if first.Leaf.Subject.CommonName != "signerd" || len(first.Leaf.ExtKeyUsage) != 1 || first.Leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate is %v for %v", first.Leaf.Subject, first.Leaf.ExtKeyUsage)
	}
	for _, test := range []struct {
		after time.Duration
		same  bool
	}{{15 * time.Hour, true}, {17 * time.Hour, false}, {0, false}} {
		now = time.Now().Add(test.after)
		c := must(self.Certificate(t.Context()))
		if (c == first) != test.same {
			t.Errorf("after %s it is the same: %v", test.after, c == first)
		}
		first = c
	}
	if b.desk.signer.Ledger().Hold("signerd") != nil {
		t.Error("signerd holds a name")
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
		{errors.New("nil pointer"), wire.Internal, ""},
	} {
		err := public(test.err)
		if wire.StatusOf(err) != test.status {
			t.Errorf("%v: status %d", test.err, wire.StatusOf(err))
		}
		if e, ok := errors.AsType[*wire.Error](err); ok && (!strings.Contains(e.Text, test.text) || strings.Contains(e.Text, "/var") || strings.Contains(e.Text, "dial")) {
			t.Errorf("%v: the client reads %q", test.err, e.Text)
		}
	}
}
