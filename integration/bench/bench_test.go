package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/need"
)

// The measurements can be taken: a few of each, without the authorities that
// take minutes to build.
func TestMeasure(t *testing.T) {
	need.Programs(t, "ssh", "openssl", "/usr/sbin/sshd", "taskset", "patch")
	a, err := newArena(t.TempDir(), t.TempDir())
	t.Cleanup(a.close)
	if err != nil {
		t.Fatal(err)
	}
	all, err := a.contestants()
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure(a, all, quick)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "performance.json")
	for _, c := range all {
		if measured := r.certificate(c.name, "shared", curve25519); measured == nil || measured.PerSecond <= 0 {
			t.Errorf("%s: %+v", c.name, measured)
		}
	}
	if err := r.writePage(out); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(strings.TrimSuffix(out, ".json") + ".md")
	if err != nil || !strings.Contains(string(page), "| "+script+" | fresh | curve25519 |") {
		t.Errorf("the page: %v\n%s", err, page)
	}
}
