package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// A machine that neither signs nor is a member has no status, and nothing to check.
func TestNothingHere(t *testing.T) {
	for _, make := range []func() *cobra.Command{newStatus, newCheck} {
		cmd := make()
		for _, flag := range []string{"config", "member"} {
			// As if it were the default.
			if err := cmd.Flags().Lookup(flag).Value.Set(filepath.Join(t.TempDir(), flag)); err != nil {
				t.Fatal(err)
			}
		}
		err := cmd.RunE(cmd, nil)
		if e, ok := errors.AsType[*exitError](err); !ok || e.code != exitConfig || !errors.Is(err, errNothing) || !strings.Contains(err.Error(), "is there") {
			t.Errorf("%s: %v", cmd.Name(), err)
		}
	}
}
