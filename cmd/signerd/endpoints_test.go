package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/config"
)

// Where etcd was last comes after what is configured, and what is no such file is
// refused with what to do.
func TestEndpoints(t *testing.T) {
	c := &config.Config{Authority: t.TempDir(), Etcd: []string{"https://a:2379"}}
	if all, err := endpoints(c); err != nil || !slices.Equal(all, c.Etcd) {
		t.Errorf("without a file: %v, %v", all, err)
	}
	if err := saveEndpoints(c, []string{"https://b:2379", "https://a:2379"}); err != nil {
		t.Fatal(err)
	}
	if all, err := endpoints(c); err != nil || !slices.Equal(all, []string{"https://a:2379", "https://b:2379"}) {
		t.Errorf("with one: %v, %v", all, err)
	}
	if err := os.WriteFile(endpointsFile(c), []byte(`["https://b:2379"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := endpoints(c); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("with another one: %v", err)
	}
}
