package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/need"
)

// The measurements can be taken: a few of each, without the authorities that
// take minutes to build.
func TestMeasure(t *testing.T) {
	need.Programs(t, "ssh", "openssl", "/usr/sbin/sshd", "taskset", "patch")
	if runtime.NumCPU() < 2 {
		need.Lacking(t, "two processors are needed")
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

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		got     float64
		atLeast bool
		want    string
	}{
		{1.0, false, "aim"}, {1.1, false, "aim"}, {1.11, false, "must"}, {1.25, false, "must"}, {1.26, false, "**missed**"},
		{80, true, "aim"}, {75, true, "aim"}, {74, true, "must"}, {60, true, "must"}, {59, true, "**missed**"},
		{0, false, "not measured"}, {0, true, "not measured"}, {math.NaN(), false, "not measured"}, {math.NaN(), true, "not measured"},
	} {
		b := bar{Must: 1.25, Aim: 1.10, Got: test.got, AtLeast: test.atLeast}
		if test.atLeast {
			b.Must, b.Aim = 60, 75
		}
		if got := b.Verdict(); got != test.want {
			t.Errorf("%v, at least %v: %s, want %s", test.got, test.atLeast, got, test.want)
		}
	}
}

// The page in doc/ is what the template makes of the results beside it.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../doc/performance.json")
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	want, err := r.page("performance")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../doc/performance.md")
	if err != nil || string(got) != want {
		t.Errorf("doc/performance.md is not written by make bench (%v)", err)
	}
}
