package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/signerd/signerd/signer"
)

// The head that etcd has is held against the ledger: what is not in it stays there, and is
// said once; a ledger that cannot be read is said once, and looked into again.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	ledgerDir := filepath.Join(dir, "ledger")
	if _, err := signer.CreateAuthority(filepath.Join(dir, "authority"), "prod-a", "p256", time.Now()); err != nil {
		t.Fatal(err)
	}
	authority, err := signer.LoadAuthority(filepath.Join(dir, "authority"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := signer.Open(signer.Parts{Cluster: "prod-a", Identity: signer.DefaultIdentity("prod-a"), Authority: authority, Ledger: ledgerDir}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var heads []signer.Head
	began := time.Now() // one day, one file
	for i := range 3 {
		line := signer.Entry{Event: signer.Issued, Time: began.UTC(), Serial: fmt.Sprintf("%032x", i+1), Profile: "client", Name: "kubemaster-01", NotAfter: time.Now().Add(time.Hour), Key: "k"}
		if err := s.Ledger().Take(t.Context(), line, signer.Ask); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, s.Ledger().Head())
	}
	text := func(head signer.Head) []byte {
		data, err := json.Marshal(head)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var log bytes.Buffer
	keeper := func(restored bool) *keeper {
		log.Reset()
		return &keeper{signer: s, log: zerolog.New(&log), restored: restored}
	}
	foreign := signer.Head{Seq: heads[1].Seq, Hash: heads[0].Hash}
	for what, test := range map[string]struct {
		value    []byte
		restored bool
		compared bool
		says     string
	}{
		"none":                      {nil, false, true, ""},
		"the end":                   {text(heads[2]), false, true, ""},
		"an earlier one":            {text(heads[0]), false, true, ""},
		"another one":               {text(foreign), false, false, "does not reach the head"},
		"no head":                   {[]byte("x"), false, false, "does not reach the head"},
		"another one of a restored": {text(foreign), true, true, "from now on it counts as it is"},
	} {
		k := keeper(test.restored)
		k.compare(test.value)
		if !k.compared {
			k.compare(test.value)
		}
		lines := 1
		if test.says == "" {
			lines = 0
		}
		if k.compared != test.compared || !strings.Contains(log.String(), test.says) || strings.Count(log.String(), "\n") != lines {
			t.Errorf("%s: compared is %v, and the log %q", what, k.compared, &log)
		}
	}

	k := keeper(false)
	names, err := filepath.Glob(filepath.Join(ledgerDir, "*.jsonl"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	whole, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names[0], bytes.Replace(whole, []byte("kubemaster-01"), []byte("kubemaster-02"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	k.compare(text(heads[0]))
	k.compare(text(heads[0]))
	if k.compared || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "cannot be held against") {
		t.Errorf("damaged: compared is %v, and the log %q", k.compared, &log)
	}
	if err := os.WriteFile(names[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if k.compare(text(heads[0])); !k.compared {
		t.Errorf("mended: compared is %v, and the log %q", k.compared, &log)
	}
}
