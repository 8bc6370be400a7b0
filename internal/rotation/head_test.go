package rotation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	driver := &Driver{signer: s}
	foreign := signer.Head{Seq: heads[1].Seq, Hash: heads[0].Hash}
	for what, test := range map[string]struct {
		value    []byte
		compared bool
		says     string
	}{
		"none":           {nil, true, ""},
		"the end":        {text(heads[2]), true, ""},
		"an earlier one": {text(heads[0]), true, ""},
		"another one":    {text(foreign), false, "does not reach the head"},
		"no head":        {[]byte("x"), false, "does not reach the head"},
	} {
		h := driver.Heads()
		found := h.compare(test.value)
		if h.compared != test.compared || !strings.Contains(found.Says, test.says) || test.says == "" && found.Says != "" {
			t.Errorf("%s: compared is %v, and found was %q", what, h.compared, found.Says)
		}
		if again := h.compare(test.value); again.Says != "" || h.compared != test.compared {
			t.Errorf("%s: the second time %q", what, again.Says)
		}
	}

	h := driver.Heads()
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
	if found := h.compare(text(heads[0])); h.compared || !strings.Contains(found.Says, "cannot be held against") {
		t.Errorf("damaged: compared is %v, and found was %q", h.compared, found.Says)
	}
	if found := h.compare(text(heads[0])); h.compared || found.Says != "" {
		t.Errorf("damaged, again: compared is %v, and found was %q", h.compared, found.Says)
	}
	if err := os.WriteFile(names[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := h.compare(text(heads[0])); !h.compared || found.Says != "" {
		t.Errorf("mended: compared is %v, and found was %q", h.compared, found.Says)
	}
}
