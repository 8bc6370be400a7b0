package bootstrap

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// FuzzTopology: what is accepted of a signer's answer is what etcd's --initial-cluster
// takes, and nothing that its environment file would take for more.
func FuzzTopology(f *testing.F) {
	for _, seed := range []string{"etcd-1=https://10.0.0.11:2380", "etcd-1=https://10.0.0.11:2380,etcd-2=https://[fd00::12]:2380\n", "a=https://b:1,", "a=https://b:1\nETCD_X=y", "a=http://b:1", "=https://:"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		places, err := parseTopology(answer)
		if err != nil {
			return
		}
		text := initialCluster(places)
		if strings.ContainsAny(text, " \t\r\n\"'\\$#") {
			t.Fatalf("%q became %q", answer, text)
		}
		if again, err := parseTopology([]byte(text)); err != nil || !reflect.DeepEqual(again, places) {
			t.Fatalf("%q became %q, and that is %v, %v", answer, text, again, err)
		}
	})
}

// FuzzJournal: a journal is refused, or is the same after it was written and read again.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"version":1,"plan":{"command":"init","cluster":"prod-a","name":"etcd-1","addresses":["10.0.0.11"],"bind":["10.0.0.11"]},"begun":"2026-11-22T12:00:00Z","done":["ca"],"found":{}}`))
	f.Add([]byte(`{"version":1,"plan":{"addresses":["not an address"]}}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(journalPath(dir), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := readJournal(dir)
		if err != nil {
			return
		}
		if err := j.write(); err != nil {
			return // a time that RFC 3339 does not have
		}
		one, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readJournal(dir)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := json.Marshal(again); err != nil || string(other) != string(one) {
			t.Fatalf("%s became %s, %v", one, other, err)
		}
	})
}
