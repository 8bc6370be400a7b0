package wire

import (
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
)

// FuzzNames: whatever is accepted as a name, an address or a pattern has one spelling, and
// nothing in it that a path, a shell, a log or etcd's configuration would take for more.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{
		"kubemaster-01", "KUBEMASTER-01.Example", "etcd-2", "10.0.0.12", "fd00::1", "::ffff:10.0.0.1", "fe80::1%eth0", "db.example:22", "[fd00::1]:2222", "[fd00::1]",
		"kubemaster-*", "*", "prod-a", "0x1.2", "1.2.3", "SHA256:" + strings.Repeat("A", 43), "..", "a b", "K", "a\x00",
	} {
		f.Add(seed)
	}
	parsers := map[string]func(string) (string, error){
		"host name": ParseHostName, "client": ParseClientName, "member": ParseMemberName, "cluster": ParseClusterID,
		"address": func(s string) (string, error) { a, err := ParseAddress(s); return a.String(), err },
		"pattern": func(s string) (string, error) { g, err := ParseGlob(s); return g.String(), err },
		"signer":  ParseSigner, "host key": ParseHostKey,
	}
	f.Fuzz(func(t *testing.T, s string) {
		for what, parse := range parsers {
			text, err := parse(s)
			if err != nil {
				continue
			}
			if again, err := parse(text); err != nil || again != text {
				t.Errorf("%s %q is %q, and that is %q, %v", what, s, text, again, err)
			}
			if what != "host key" && strings.ContainsAny(text, "/\\ \t\r\n\x00'\"$`;,=%@") || strings.Contains(text, "..") && what != "pattern" {
				t.Errorf("%s %q is %q", what, s, text)
			}
			if what == "signer" {
				if _, _, err := net.SplitHostPort(text); err != nil {
					t.Errorf("%s %q: %v", what, s, err)
				}
			}
		}
		if g, err := ParseGlob(s); err == nil && (g.Literal() && !g.Match(s) || !g.Match(strings.ReplaceAll(s, "*", "")) || !g.Match(strings.ReplaceAll(s, "*", "x-1.a"))) {
			t.Errorf("the pattern %q does not match itself", s)
		}
	})
}

// FuzzClusterStatus: an answer that is read is one of a cluster, and comes through a
// second time.
func FuzzClusterStatus(f *testing.F) {
	f.Add([]byte(`{"cluster":"prod-a","time":"2026-11-22T12:00:00Z","generations":[{"role":"active","fingerprint":"aa","not_after":"2036-11-22T12:00:00Z","cross":true}],` +
		`"members":[{"name":"etcd-1","id":"8e9e05c52164694d","learner":false,"healthy":true}],"names":[{"name":"a","not_after":"2026-11-22T12:00:00Z","missed":true}]}`))
	f.Add([]byte(`{"cluster":"../../etc"}`))
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		s, err := ParseClusterStatus(answer)
		if err != nil {
			return
		}
		if _, err := ParseClusterID(s.Cluster); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(s)
		if _, unmarshalable := errors.AsType[*json.MarshalerError](err); unmarshalable {
			return // a time with a zone that RFC 3339 does not have
		}
		again, err := ParseClusterStatus(text)
		if err != nil || len(again.Members) != len(s.Members) || len(again.Generations) != len(s.Generations) || !again.Time.Equal(s.Time) {
			t.Fatalf("%s: %v", text, err)
		}
	})
}
