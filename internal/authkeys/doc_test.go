package authkeys

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// The format's page has a row for each option.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../doc/authorized_keys.5.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range slices.Concat(neverGiven, withheld, slices.Collect(maps.Keys(valued)), []string{"cert-authority", "no-touch-required", "verify-required"}) {
		if !strings.Contains(string(page), "`"+option+"`") && !strings.Contains(string(page), "`"+option+`="`) {
			t.Errorf("option %s has no row", option)
		}
	}
}
