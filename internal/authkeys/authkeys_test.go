package authkeys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

var (
	now    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	source = netip.MustParseAddr("10.0.0.12")
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func marshal(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func parse(t testing.TB, text string) *Keys {
	t.Helper()
	keys, err := Parse("authorized_keys", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func command(t testing.TB, line string) wire.Command {
	t.Helper()
	c, err := wire.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExampleParses(t *testing.T) {
	data, err := os.ReadFile("../../authorized_keys.example")
	if err != nil {
		t.Fatal(err)
	}
	if n := parse(t, string(data)).Len(); n != 6 {
		t.Errorf("%d keys, want 6", n)
	}
}

// Options that are accepted, and what they let a key do.
func TestAllows(t *testing.T) {
	key := newSigner(t).PublicKey()
	for _, test := range []struct {
		options string
		allowed string // commands, separated by |
		denied  string
	}{
		{"", "help|get-peers|get-certificate|get-topology|get-status", "kubemaster-01|etcd-2=10.0.0.12|release a|remove etcd-2|rotate status"},
		{"restrict,no-pty,no-agent-forwarding,no-port-forwarding,no-X11-forwarding,no-user-rc,touch-required,no-verify-required", "get-peers", "kubemaster-01"},
		{`permit="get-peers"`, "help|get-peers", "get-status"},
		{`permit="get-*,kubemaster-07"`, "get-peers|kubemaster-07", "kubemaster-08|kubemaster-071|etcd-2=10.0.0.12|release kubemaster-07"},
		{`PERMIT="kubemaster-*"`, "help|kubemaster-07", "get-peers|master-1"},
		{`permit="*"`, "get-peers|kubemaster-07", "etcd-2=10.0.0.12|release a|remove etcd-2|rotate status"},
		{`permit="etcd-*"`, "etcd-2=10.0.0.12", "etcd-2=10.0.0.13|etcd-2=10.0.0.12,10.0.0.13|kubemaster-01|remove etcd-2"},
		{`permit="etcd-2"`, "etcd-2=10.0.0.12", "etcd-3=10.0.0.12"},
		{`permit="etcd-2=10.0.0.22"`, "etcd-2=10.0.0.22", "etcd-2=10.0.0.12|etcd-2=10.0.0.22,10.0.0.12"},
		{`permit="etcd-2=10.0.0.22,etcd-2=10.0.0.32"`, "etcd-2=10.0.0.22|etcd-2=10.0.0.32,10.0.0.22", "etcd-2=10.0.0.42|etcd-2=10.0.0.22,10.0.0.42"},
		{`permit="etcd-2,etcd-2=10.0.0.22"`, "etcd-2=10.0.0.12,10.0.0.22|etcd-2=10.0.0.22", "etcd-2=10.0.0.13"},
		{`permit="etcd-*=FD00::1"`, "etcd-2=fd00::1", "etcd-2=fd00::2"},
		{`permit="etcd-2=db2.example"`, "etcd-2=db2.example", "etcd-2=db3.example"},
		{`permit="release kubemaster-*"`, "release kubemaster-07", "release other|remove etcd-2|kubemaster-07"},
		{`permit="release *,remove etcd-2"`, "release etcd-2|remove etcd-2", "remove etcd-3"},
		{`permit="rotate status"`, "rotate status", "rotate prepare"},
		{`permit="rotate *"`, "rotate prepare|rotate finish", "release a|rotate prepare --from"},
		{`permit="rotate prepare --from"`, "rotate prepare --from", "rotate prepare|rotate status"},
		{`command="kubemaster-07"`, "kubemaster-07", "get-peers|kubemaster-08"},
		{`command="etcd-2=10.0.0.12,10.0.0.22"`, "etcd-2=10.0.0.12,10.0.0.22", "etcd-2=10.0.0.13"},
		{`command="get-peers",permit="get-*"`, "get-peers", "kubemaster-08"},
	} {
		grant, err := parse(t, strings.TrimSpace(test.options+" "+marshal(key))).Admit(key, source, now)
		if err != nil {
			t.Errorf("%s: %v", test.options, err)
			continue
		}
		for want, list := range map[bool]string{true: test.allowed, false: test.denied} {
			for line := range strings.SplitSeq(list, "|") {
				if got := grant.Allows(command(t, line), wire.AddressFrom(source)); got != want {
					t.Errorf("%s: %q allowed: %v, want %v", test.options, line, got, want)
				}
			}
		}
	}
}

// Options that refuse the whole file, each beside a valid neighbour.
func TestRefused(t *testing.T) {
	for _, test := range []struct{ refused, valid string }{
		{"pty", "no-pty"},
		{"port-forwarding", "no-port-forwarding"},
		{"agent-forwarding", "no-agent-forwarding"},
		{"x11-forwarding", "no-x11-forwarding"},
		{"user-rc", "no-user-rc"},
		{`environment="A=b"`, "restrict"},
		{`permitopen="host:22"`, "restrict"},
		{`permitlisten="22"`, "restrict"},
		{`tunnel="1"`, "restrict"},
		{"verify-required", "no-verify-required"},
		{"touch-required,no-touch-required", "no-touch-required"},
		{"unknown", "restrict"},
		{`unknown="x"`, `from="*"`},
		{"no-restrict", "restrict"},
		{`restrict="yes"`, "restrict"},
		{"restrict,", "restrict"},
		{"restrict,,no-pty", "restrict,no-pty"},
		{",restrict", "restrict"},
		{"restrict,restrict", "restrict"},
		{"command", `command="help"`},
		{"command=help", `command="help"`},
		{`command="help`, `command="help"`},
		{`command="help"x`, `command="help"`},
		{`"restrict"`, "restrict"},
		{`command=""`, `command="help"`},
		{`command="rm -rf /"`, `command="help"`},
		{`command="help",command="help"`, `command="help"`},
		{`command="kubemaster-01",permit="get-*"`, `command="kubemaster-01",permit="kubemaster-*"`},
		{`principals="kubemaster-01"`, `cert-authority,principals="kubemaster-01"`},
		{`cert-authority,principals=""`, `cert-authority,principals="kubemaster-01"`},
		{`cert-authority,principals="a b"`, `cert-authority,principals="a,b"`},
		{`cert-authority,permit="etcd-*"`, `cert-authority,permit="get-*"`},
		{`cert-authority,permit="release *"`, `permit="release *"`},
		{`from="host.example"`, `from="10.0.0.1"`},
		{`from="!host.example,10.0.0.1"`, `from="!10.0.0.2,10.0.0.1"`},
		{`from="10.0.0.1/24"`, `from="10.0.0.0/24"`},
		{`from="10.0.0.0/33"`, `from="10.0.0.0/32"`},
		{`from=""`, `from="*"`},
		{`from="10.0.0.1,"`, `from="10.0.0.1"`},
		{`from="!10.0.0.1"`, `from="!10.0.0.1,*"`},
		{`from="::ffff:10.0.0.1"`, `from="10.0.0.1"`},
		{`from="::ffff:10.0.0.0/104"`, `from="10.0.0.0/8"`},
		{`from="fe80::1%eth0"`, `from="fe80::1"`},
		{`from="bad*"`, `from="10.0.*"`},
		{`expiry-time="2026"`, `expiry-time="20990101"`},
		{`expiry-time="20261301"`, `expiry-time="209912312359"`},
		{`expiry-time="20260230"`, `expiry-time="20990101235959Z"`},
		{`expiry-time="20990101X"`, `expiry-time="20990101UTC"`},
		{`permit=""`, `permit="help"`},
		{`permit="get-*,"`, `permit="get-*"`},
		{`permit="get-peer"`, `permit="get-peers"`},
		{`permit="get-x*"`, `permit="get-p*"`},
		{`permit="Kubemaster-*"`, `permit="kubemaster-*"`},
		{`permit="kubemaster-?"`, `permit="kubemaster-*"`},
		{`permit="kubemaster-01=10.0.0.1"`, `permit="etcd-1=10.0.0.1"`},
		{`permit="etcd-1=10.0.0.*"`, `permit="etcd-1"`},
		{`permit="etcd-1="`, `permit="etcd-1"`},
		{`permit="etcd-A"`, `permit="etcd-a"`},
		{`permit="release"`, `permit="release *"`},
		{`permit="release a b"`, `permit="release a"`},
		{`permit="re* a"`, `permit="remove etcd-a"`},
		{`permit="remove a"`, `permit="remove etcd-a"`},
		{`permit="rotate now"`, `permit="rotate status"`},
		{`permit="rotate finish --from"`, `permit="rotate prepare --from"`},
		{`permit="release a --from"`, `permit="release a"`},
		{`permit="sign kubemaster-01"`, `permit="kubemaster-01"`},
		{`permit=" get-*"`, `permit="get-*"`},
		{`permit="get-*" ,restrict`, `permit="get-*",restrict`},
	} {
		key := marshal(newSigner(t).PublicKey())
		good := "# a comment\n\n" + marshal(newSigner(t).PublicKey()) + "\n"
		_, err := Parse("keys", []byte(good+test.refused+" "+key+"\n"))
		if err == nil || !strings.Contains(err.Error(), "keys:4: ") {
			t.Errorf("%s: %v; want a refusal that names keys:4", test.refused, err)
		}
		if _, err := Parse("keys", []byte(good+test.valid+" "+key+"\n")); err != nil {
			t.Errorf("%s: %v", test.valid, err)
		}
	}
}

func TestRefusedKeys(t *testing.T) {
	listed := func(key crypto.Signer, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		public, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return marshal(public)
	}
	rsaKey := func(bits int) string {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		return listed(key, err)
	}
	ecdsaKey := func(curve elliptic.Curve) string {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		return listed(key, err)
	}
	good := marshal(newSigner(t).PublicKey())
	for line, ok := range map[string]bool{
		good:                                true,
		good + " comment with \"quotes\"":   true,
		"\t " + good:                        true,
		good + "\r":                         true,
		strings.Replace(good, " ", "\t", 1): true,
		ecdsaKey(elliptic.P256()):           true,
		ecdsaKey(elliptic.P521()):           true,
		rsaKey(3072):                        true,
		rsaKey(2048):                        false,
		"ssh-ed25519":                       false,
		"ssh-ed25519 AAAA":                  false,
		good[:40]:                           false,
		strings.Replace(good, "ssh-ed25519", "ssh-rsa", 1): false,
		"ssh-dss AAAAB3NzaC1kc3M=":                         false,
		"restrict":                                         false,
		"restrict " + "10.0.0.1 " + good:                   false,
		good[12:]:                                          false,
		"restrict " + strings.Repeat("x", maxLine):         false,
		good + " comment\x00":                              false,
		good + "\n" + good:                                 false, // the second never counts
		`from="10.0.0.1" ` + good + "\n" + good:            true,
		good + "\ncert-authority " + good:                  true,
	} {
		if _, err := Parse("keys", []byte(line)); (err == nil) != ok {
			t.Errorf("%.60q: %v; want ok %v", line, err, ok)
		}
	}
}

func TestAllProblemsAreListed(t *testing.T) {
	_, err := Parse("keys", []byte("pty "+marshal(newSigner(t).PublicKey())+"\nnonsense\n"))
	if err == nil || !strings.Contains(err.Error(), "keys:1:") || !strings.Contains(err.Error(), "keys:2:") {
		t.Errorf("%v; want both lines", err)
	}
}

func TestFrom(t *testing.T) {
	key := newSigner(t).PublicKey()
	for _, test := range []struct {
		from, source string
		want         bool
	}{
		{"10.0.0.12", "10.0.0.12", true},
		{"10.0.0.12", "10.0.0.13", false},
		{"10.0.0.0/24", "10.0.0.255", true},
		{"10.0.0.0/24", "10.0.1.0", false},
		{"10.0.0.*", "10.0.0.7", true},
		{"10.0.0.1?", "10.0.0.12", true},
		{"10.0.0.1?", "10.0.0.1", false},
		{"*", "fd00::1", true},
		{"fd00::/16", "fd00:1::2", true},
		{"FD00::1", "fd00::1", true},
		{"fd00:*", "fd00::1", true},
		{"10.0.0.0/8", "::ffff:10.0.0.12", true},
		{"!10.0.0.12,10.0.0.0/24", "10.0.0.12", false},
		{"10.0.0.0/24,!10.0.0.12", "10.0.0.12", false},
		{"10.0.0.0/24,!10.0.0.12", "10.0.0.13", true},
		{"192.168.0.0/16,10.0.0.0/24", "10.0.0.13", true},
	} {
		keys := parse(t, fmt.Sprintf("from=%q %s", test.from, marshal(key)))
		_, err := keys.Admit(key, netip.MustParseAddr(test.source), now)
		if (err == nil) != test.want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("from=%q, source %s: %v; want %v", test.from, test.source, err, test.want)
		}
	}
}

func TestExpiry(t *testing.T) {
	key := newSigner(t).PublicKey()
	for _, test := range []struct {
		options string
		want    bool
	}{
		{`expiry-time="202611221200Z"`, false},
		{`expiry-time="20261122120001Z"`, true},
		{`expiry-time="20261123Z"`, true},
		{`expiry-time="20261123Z",expiry-time="20261121Z"`, false}, // the earliest wins
		{`expiry-time="20261121Z",expiry-time="20261123Z"`, false},
	} {
		_, err := parse(t, test.options+" "+marshal(key)).Admit(key, source, now)
		if (err == nil) != test.want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v; want %v", test.options, err, test.want)
		}
	}
}

// The first line that admits a key counts, as in sshd.
func TestFirstAdmittingLine(t *testing.T) {
	key := newSigner(t).PublicKey()
	text := marshal(key)
	keys := parse(t, `from="192.168.0.0/16",permit="kubemaster-01" `+text+"\n"+`from="10.0.0.0/8",permit="kubemaster-02" `+text)
	grant, err := keys.Admit(key, source, now)
	if err != nil || grant.Line != 2 || !grant.Owns("kubemaster-02") {
		t.Errorf("%+v, %v; want line 2", grant, err)
	}
	if _, err := keys.Admit(newSigner(t).PublicKey(), source, now); !errors.Is(err, ErrUnlisted) {
		t.Errorf("an unlisted key: %v", err)
	}
	if _, err := keys.Admit(key, netip.MustParseAddr("127.0.0.1"), now); errors.Is(err, ErrUnlisted) || !errors.Is(err, ErrDenied) {
		t.Errorf("a listed key from elsewhere: %v", err)
	}
}

func TestOwns(t *testing.T) {
	key := newSigner(t).PublicKey()
	for permit, want := range map[string]bool{
		"get-*,kubemaster-07":                  true,
		"kubemaster-07":                        true,
		"help,kubemaster-07,release *":         true,
		"get-*":                                false,
		"get-*,kubemaster-*":                   false,
		"kubemaster-07,kubemaster-08":          false,
		"kubemaster-07,etcd-*":                 false,
		"kubemaster-07,etcd-2":                 false,
		"*,kubemaster-07":                      false,
		"kubemaster-07,kubemaster-0*":          false,
		"get-*,kubemaster-07,g*":               false,
		"kubemaster-07,kubemaster-07":          true,
		"release kubemaster-07":                false,
		"kubemaster-07,rotate *,remove etcd-2": true,
	} {
		grant, err := parse(t, fmt.Sprintf("permit=%q %s", permit, marshal(key))).Admit(key, source, now)
		if err != nil || grant.Owns("kubemaster-07") != want {
			t.Errorf("permit=%q owns: %v, %v; want %v", permit, !want, err, want)
		}
	}
	grant, err := parse(t, `permit="etcd-2=10.0.0.12,etcd-2=10.0.0.22" `+marshal(key)).Admit(key, source, now)
	if err != nil || !grant.Owns("etcd-2") {
		t.Errorf("a member's literal line does not own its name: %v", err)
	}
}

// FuzzParse: what parses is a list of keys that may log in, with permits that
// let through no more than their patterns say.
func FuzzParse(f *testing.F) {
	key := marshal(newSigner(f).PublicKey())
	f.Add(key)
	f.Add(`permit="get-*,etcd-2=10.0.0.1",from="!10.0.0.1,10.*",expiry-time="20990101Z",command="help" ` + key)
	f.Add(`cert-authority,principals="a,b" ` + key)
	f.Add(`command="x\"y" ` + key)
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := Parse("keys", []byte(text))
		if err != nil {
			return
		}
		for _, l := range keys.lines {
			if CheckKey(l.key, minListedRSABits) != nil {
				t.Fatalf("%q lists a %s", text, l.key.Type())
			}
			if l.command != "" && !l.permit.covers(l.command) {
				t.Fatalf("%q forces %q and does not permit it", text, l.command)
			}
			if len(l.permit) == 0 {
				t.Fatalf("%q permits nothing, not even get-*", text)
			}
			elsewhere := command(t, "etcd-1=192.0.2.1")
			if l.permit.allows(elsewhere, wire.AddressFrom(source)) && !strings.Contains(strings.ToLower(text), "=192.0.2.1") {
				t.Fatalf("%q permits an address that is neither the source's nor written down", text)
			}
			for _, word := range []string{"release a", "remove etcd-1", "rotate status"} {
				if verb, _, _ := strings.Cut(word, " "); l.permit.allows(command(t, word), wire.AddressFrom(source)) && !strings.Contains(text, verb+" ") {
					t.Fatalf("%q permits %q without the word", text, word)
				}
			}
		}
	})
}
