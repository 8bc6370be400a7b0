package signer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/durable"
)

// Open says what a crash left of a step and of a batch; and where the CA cannot be
// recovered, it lets the next one at the ledger.
func TestOpen(t *testing.T) {
	s, dir := newRotating(t)
	parts := Parts{Cluster: "prod-a", Identity: s.identity, Authority: s.authority, Ledger: s.ledger.dir}
	if err := take(t, s.ledger, issue("a", "k", noon), Ask); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(parts, noon); err == nil {
		t.Error("two have the ledger")
	}
	closeLedger(t, s.ledger)
	s.ledger = openLedger(t, t.TempDir(), LedgerOptions{}) // for the cleanup

	step := filepath.Join(dir, stepFile)
	if err := os.WriteFile(step, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(parts, noon); err == nil || !strings.Contains(err.Error(), "move it away; what counts is in state.json") {
		t.Errorf("a damaged step: %v", err)
	}
	if err := must(LoadAuthority(dir, noon)).CheckStep(); err == nil {
		t.Error("a damaged step passes the check")
	}
	names := must(ledgerFiles(parts.Ledger))
	file := must(os.OpenFile(filepath.Join(parts.Ledger, names[0]), os.O_APPEND|os.O_WRONLY, 0))
	if _, err := file.WriteString(`{"seq":`); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	state := must(readState(dir))
	record := stepRecord{Version: stateVersion, Step: Prepare, From: []string{state.Generations[0].ID}, To: append(state.Generations, generationState{"0123abcd", Passive, false})}
	if err := durable.SaveState(step, record, 0o600); err != nil {
		t.Fatal(err)
	}
	again, left, err := Open(parts, noon)
	if err != nil || left != (Left{Cut: int64(len(`{"seq":`)), Undone: Prepare}) {
		t.Fatalf("left is %+v, %v", left, err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	again, left, err = Open(parts, noon)
	if err != nil || left != (Left{}) {
		t.Fatalf("after that, left is %+v, %v", left, err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
