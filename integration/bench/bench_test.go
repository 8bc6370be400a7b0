package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The measurements can be taken: a few of each, without the authorities that
// take minutes to build.
func TestMeasure(t *testing.T) {
	for _, program := range []string{"/usr/sbin/sshd", "taskset", "patch"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("REQUIRE") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
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
