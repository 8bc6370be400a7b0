package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, test := range []struct {
		line, want string // want is the canonical form; empty: an error
		err        error
	}{
		{"help", "help", nil},
		{"--help", "help", nil},
		{"get-peers", "get-peers", nil},
		{"  get-peers ", "get-peers", nil},
		{"get-status", "get-status", nil},
		{"get-statu", "", ErrCommand},
		{"GET-PEERS", "", ErrCommand},
		{"get-", "", ErrCommand},
		{"Help", "", ErrCommand},
		{"release", "", ErrCommand},
		{"Release", "", ErrCommand},
		{"rotate", "", ErrCommand},
		{"", "", ErrCommand},
		{"get-peers now", "", ErrCommand},
		{"get-peers\n", "", ErrCommand},
		{"kubemaster-01\x00", "", ErrCommand},
		{"kubemaster-01\t", "", ErrCommand},
		{strings.Repeat(" ", MaxCommand) + "x", "", ErrCommand},
		{strings.Repeat(" ", MaxCommand-1) + "x", "x", nil},

		{"kubemaster-01", "kubemaster-01", nil},
		{"KubeMaster-01.Example.COM", "kubemaster-01.example.com", nil},
		{long, long, nil},
		{long + "a", "", ErrName},
		{"etcd-1", "etcd-1", nil}, // whether anybody may have it is decided later
		{"kube_master", "", ErrName},
		{"-kubemaster", "", ErrName},
		{"kubemaster-", "", ErrName},
		{"kube..master", "", ErrName},
		{"kubemaster.", "", ErrName},
		{"10.0.0.1", "", ErrName},
		{"10.0.0.256", "", ErrName},
		{"42", "", ErrName},
		{"0x7f000001", "", ErrName},
		{"10.0.0.0xb", "", ErrName},
		{"0xyz", "0xyz", nil},
		{"\u212aubemaster-07", "", ErrName}, // the Kelvin sign, in lower case a k
		{"42.example", "42.example", nil},
		{"::1", "", ErrName},
		{"kubemästér", "", ErrName},
		{"$HOSTNAME", "", ErrName},
		{"kubemaster-01;id", "", ErrName},
		{"../ca.key", "", ErrName},

		{"etcd-2=10.0.0.12", "etcd-2=10.0.0.12", nil},
		{"etcd-2=10.0.0.12,10.0.0.22", "etcd-2=10.0.0.12,10.0.0.22", nil},
		{"etcd-2=FD00::1", "etcd-2=fd00::1", nil},
		{"etcd-2=fd00:0:0::0:1", "etcd-2=fd00::1", nil},
		{"etcd-2=db2.Example.com", "etcd-2=db2.example.com", nil},
		{"etcd-2=", "", ErrName},
		{"etcd-2=,", "", ErrName},
		{"etcd-2=10.0.0.12,", "", ErrName},
		{"etcd-2=10.0.0.12,10.0.0.12", "", ErrName},
		{"etcd-2=fd00::1,FD00:0::1", "", ErrName},
		{"etcd-2=10.0.0.256", "", ErrName},
		{"etcd-2=0.0.0.0", "", ErrName},
		{"etcd-2=::", "", ErrName},
		{"etcd-2=224.0.0.1", "", ErrName},
		{"etcd-2=255.255.255.255", "", ErrName},
		{"etcd-2=fe80::1%eth0", "", ErrName},
		{"etcd-2=::ffff:10.0.0.1", "", ErrName},
		{"etcd-2=10.0.0.12:2380", "", ErrName},
		{"etcd-2=[::1]", "", ErrName},
		{"etcd-2=https://10.0.0.12", "", ErrName},
		{"etcd-=10.0.0.12", "", ErrName},
		{"etcd-A=10.0.0.12", "", ErrName},
		{"ETCD-2=10.0.0.12", "", ErrName},
		{"etcd--2=10.0.0.12", "", ErrName},
		{"etcd-2-=10.0.0.12", "", ErrName},
		{"etcd-a-b=10.0.0.12", "etcd-a-b=10.0.0.12", nil},
		{"etcd-" + strings.Repeat("a", 27) + "=10.0.0.12", "etcd-" + strings.Repeat("a", 27) + "=10.0.0.12", nil},
		{"etcd-" + strings.Repeat("a", 28) + "=10.0.0.12", "", ErrName},
		{"kubemaster-01=10.0.0.12", "", ErrName},

		{"release kubemaster-01", "release kubemaster-01", nil},
		{"release  KUBEMASTER-01", "release kubemaster-01", nil},
		{"release etcd-2", "release etcd-2", nil},
		{"release kube_master", "", ErrCommand},
		{"release a b", "", ErrCommand},
		{"remove etcd-2", "remove etcd-2", nil},
		{"remove kubemaster-01", "", ErrCommand},
		{"remove etcd-2=10.0.0.12", "", ErrCommand},
		{"rotate prepare", "rotate prepare", nil},
		{"rotate  prepare --from", "rotate prepare --from", nil},
		{"rotate finish --from", "", ErrCommand},
		{"rotate prepare --from x", "", ErrCommand},
		{"release a b", "", ErrCommand},
		{"rotate now", "", ErrCommand},
		{"sign kubemaster-01", "", ErrCommand},
		{`"kubemaster-01"`, "", ErrName},
	} {
		command, err := Parse(test.line)
		if !errors.Is(err, test.err) || err == nil && command.String() != test.want {
			t.Errorf("Parse(%q) = %q, %v; want %q, %v", test.line, command, err, test.want, test.err)
		}
	}
}

// A command has one spelling, whatever it was parsed from.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"help", "get-peers", "kubemaster-01", "etcd-2=10.0.0.12,fd00::1,db2.example.com", "release a", "remove etcd-2", "rotate status", "rotate prepare --from",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		command, err := Parse(line)
		if err != nil {
			if !errors.Is(err, ErrCommand) && !errors.Is(err, ErrName) {
				t.Fatalf("Parse(%q): %v is of no class", line, err)
			}
			return
		}
		again, err := Parse(command.String())
		if err != nil || !reflect.DeepEqual(again, command) {
			t.Fatalf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", line, command, command, again, err)
		}
		if command.Verb == Client && IsCommandWord(command.Name) {
			t.Fatalf("Parse(%q): the command word %s is a name", line, command.Name)
		}
	})
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, word string
		want          bool
	}{
		{"kubemaster-*", "kubemaster-01", true},
		{"kubemaster-*", "kubemaster-", true},
		{"kubemaster-*", "kubemaster", false},
		{"*", "anything.at-all", true},
		{"k*-0*.example", "kubemaster-07.example", true},
		{"kubemaster-01", "kubemaster-011", false},
	} {
		glob, err := ParseGlob(test.pattern)
		if err != nil || glob.Match(test.word) != test.want {
			t.Errorf("%q over %q: %v, %v; want %v", test.pattern, test.word, glob.Match(test.word), err, test.want)
		}
	}
	for _, pattern := range []string{"", "KUBE*", "kube?", "kube[0-9]", `kube\*`, "a b", "a=b", "a/b"} {
		if _, err := ParseGlob(pattern); !errors.Is(err, ErrName) {
			t.Errorf("ParseGlob(%q): %v; want a refusal", pattern, err)
		}
	}
}

func TestStatusOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Status
	}{
		{nil, OK},
		{Errorf(Denied, "no"), Denied},
		{errors.New("anything"), Internal},
		{errors.Join(errors.New("x"), Errorf(Retry, "later")), Retry},
	} {
		if got := StatusOf(test.err); got != test.want {
			t.Errorf("StatusOf(%v) = %d, want %d", test.err, got, test.want)
		}
	}
}
