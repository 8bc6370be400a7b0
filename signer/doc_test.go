package signer

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// The ledger's page has a row for each member of a line, and every event.
func TestLedgerPage(t *testing.T) {
	data, err := os.ReadFile("../doc/ledger.5.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	entry := reflect.TypeFor[Entry]()
	for i := range entry.NumField() {
		name, _, _ := strings.Cut(entry.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("member %s has no row", name)
		}
	}
	for _, event := range []Event{Issued, Voided, Released, Rotated, Fetched, committed} {
		if !strings.Contains(page, "`"+string(event)+"`") {
			t.Errorf("event %s is not there", event)
		}
	}
	for _, p := range []*profile{client, member, self, probe} {
		if !strings.Contains(page, "`"+p.name+"`") {
			t.Errorf("profile %s is not there", p.name)
		}
	}
}
