package signer

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/durable"
)

// contents gives the files of a directory.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[entry.Name()] = string(data)
	}
	return all
}

// fill makes a directory of files.
func fill(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fuzzedAuthority gives the files of an authority in a rotation, and its generations.
func fuzzedAuthority(f *testing.F) (files map[string]string, ids []string) {
	dir := filepath.Join(f.TempDir(), "authority")
	first, err := CreateAuthority(dir, "prod-a", "p256", noon)
	if err != nil {
		f.Fatal(err)
	}
	second, err := newCA("prod-a", elliptic.P256(), noon)
	if err != nil {
		f.Fatal(err)
	}
	if second, err = second.crossSigned(first, noon); err != nil {
		f.Fatal(err)
	}
	second.Role = Passive
	if err := writeGeneration(dir, second); err != nil {
		f.Fatal(err)
	}
	all := set{first, second}
	tenure, err := newTenure(0)
	if err != nil {
		f.Fatal(err)
	}
	if err := writeRecord(filepath.Join(dir, stateFile), all.state(standing{Tenure: tenure})); err != nil {
		f.Fatal(err)
	}
	return contents(f, dir), all.ids()
}

// FuzzState: whatever state.json holds, it is refused and left as it is, or there is one
// active generation, and what is exported comes back the same.
func FuzzState(f *testing.F) {
	files, _ := fuzzedAuthority(f)
	f.Add([]byte(files[stateFile]))
	for _, change := range [][2]string{{"active", "passive"}, {"passive", "active"}, {`"version": 1`, `"version": 2`}, {`"epoch": 1`, `"epoch": 0`}, {"cross", "Cross"}, {"}", "}}"}} {
		f.Add([]byte(strings.ReplaceAll(files[stateFile], change[0], change[1])))
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		all := maps.Clone(files)
		all[stateFile] = string(data)
		dir := fill(t, all)
		a, err := LoadAuthority(dir, noon)
		if err != nil {
			if after := contents(t, dir); !maps.Equal(all, after) {
				t.Fatal("what is refused was changed")
			}
			return
		}
		if active := slices.DeleteFunc(slices.Clone(a.Generations()), func(g *Generation) bool { return g.Role != Active }); len(active) != 1 {
			t.Fatalf("%d generations are active", len(active))
		}
		exported, err := a.Export()
		if err != nil {
			t.Fatal(err)
		}
		again, err := RestoreAuthority(filepath.Join(t.TempDir(), "authority"), exported, noon)
		if err != nil || !again.Restored() || !slices.Equal(again.current().generations(), a.current().generations()) {
			t.Fatalf("it does not come back: %v", err)
		}
	})
}

// FuzzStep: whatever the journal of a step holds, no generation of state.json loses a
// file, nor one that was there before by the journal itself; nothing outside is touched, and
// whoever recovers once has nothing left to recover.
func FuzzStep(f *testing.F) {
	files, ids := fuzzedAuthority(f)
	for _, record := range []stepRecord{
		{Step: Prepare, From: ids[:1], To: []generationState{{ids[0], Active, false}, {ids[1], Passive, true}}},
		{Step: Activate, From: ids, To: []generationState{{ids[0], Passive, false}, {ids[1], Active, true}}},
		{Step: Abort, From: ids, To: []generationState{{ids[0], Active, false}}},
		{Step: Prepare, From: ids[1:], To: []generationState{{"00000000", Passive, true}}},
		{Step: Prepare, From: []string{ids[0], ids[1], "00000000"}, To: []generationState{{"00000000", Active, false}, {"11111111", Passive, false}}},
		{Step: Prepare, From: nil, To: []generationState{{ids[0], Active, false}}},
		{Step: Prepare, From: []string{"../victim"}, To: []generationState{{"../victim", Active, false}}},
	} {
		record.Version = stateVersion
		data, err := durable.EncodeState(record)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		there := maps.Clone(files)
		older := files[ids[0]+".crt"]
		there["00000000.crt"] = older
		dir := fill(t, there)
		victim := filepath.Join(filepath.Dir(dir), "victim.key")
		for path, text := range map[string]string{filepath.Join(dir, stepFile): string(data), victim: "not ours"} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a, err := LoadAuthority(dir, noon)
		if err != nil {
			t.Fatal(err)
		}
		record, _ := readStep(dir)
		damaged := a.CheckStep()
		step, err := a.Recover(noon)
		if fmt.Sprint(err) != fmt.Sprint(damaged) { // nothing else stands in the way
			t.Fatalf("the check says %v, and the start %v", damaged, err)
		}
		after := contents(t, dir)
		if step != "" && slices.Contains(record.From, "00000000") && after["00000000.crt"] != older {
			t.Fatalf("what was there before %s is gone", step)
		}
		for name, text := range files {
			if after[name] != text {
				t.Fatalf("%s is %q after %v", name, after[name], err)
			}
		}
		if text, err := os.ReadFile(victim); err != nil || string(text) != "not ours" {
			t.Fatalf("another's file: %q, %v", text, err)
		}
		if err != nil {
			return // and it says so again
		}
		if step, err := a.Recover(noon); step != "" || err != nil || after[stepFile] != "" {
			t.Fatalf("recovered, and again: %q, %v", step, err)
		}
	})
}

// FuzzPEM: certificates and keys that are read are the same when they are written and
// read again, and what is parted from a key is all there is.
func FuzzPEM(f *testing.F) {
	files, ids := fuzzedAuthority(f)
	certificate, key := files[ids[0]+".crt"], files[ids[0]+".key"]
	for _, seed := range []string{certificate, key, certificate + key, key + certificate, "x\n" + certificate, certificate + "x", certificate + certificate, ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if all, err := ParseCertificates(data); err == nil {
			again, err := ParseCertificates(EncodeCertificates(all))
			if err != nil || !slices.EqualFunc(all, again, (*x509.Certificate).Equal) {
				t.Fatalf("certificates: %v", err)
			}
		}
		if key, err := ParsePrivateKey(data); err == nil {
			text, err := encodePrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParsePrivateKey(text)
			if err != nil {
				t.Fatal(err)
			}
			one, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if other, err := x509.MarshalPKIXPublicKey(again.Public()); err != nil || !bytes.Equal(one, other) {
				t.Fatalf("a key became another: %v", err)
			}
		}
		if certificates, key, err := splitPEM(data); err == nil {
			again, rest, err := splitPEM(slices.Concat(key, certificates))
			if err != nil || !bytes.Equal(again, certificates) || !bytes.Equal(rest, key) {
				t.Fatalf("parted once more: %v", err)
			}
		}
	})
}

// FuzzIdentity: an identity has one spelling, and every name in it a URI of its own that
// begins with it.
func FuzzIdentity(f *testing.F) {
	for _, seed := range []string{"etcd://prod-a.etcd.internal", "spiffe://prod.example", "spiffe://prod.example/etcd", "netsy://my-cluster", "netsy://a/b", "a://b?c", "a://b/%2e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		identity, err := ParseIdentity(s)
		if err != nil {
			return
		}
		if identity.String() != s {
			t.Fatalf("%q became %q", s, identity)
		}
		one, other := identity.of("client", "kubemaster-01").String(), identity.of("peer", "kubemaster-01").String()
		if one == other || !strings.HasPrefix(one, s+"/") || !strings.HasPrefix(other, s+"/") {
			t.Fatalf("%q gives %q and %q", s, one, other)
		}
	})
}
