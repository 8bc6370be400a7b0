package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type state struct {
	Version int      `json:"version"`
	Names   []string `json:"names"`
}

// What was saved is loaded, in the place of what was there.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, names := range [][]string{{"a", "b"}, {"c"}} {
		if err := SaveState(path, state{1, names}, 0o640); err != nil {
			t.Fatal(err)
		}
		var s state
		if err := LoadState(path, 1, &s); err != nil || strings.Join(s.Names, "") != strings.Join(names, "") {
			t.Errorf("loaded %+v, %v", s, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// What is no state of this form is refused.
func TestLoadStateRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := LoadState(path, 1, &state{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	for text, want := range map[string]string{
		``:                                "is damaged",
		`{"version":1,"names":["a"]`:      "is damaged",
		`{"version":1,"names":["a"]} {}`:  "is damaged",
		`{"version":1,"name":["a"]}`:      "is damaged",
		`{"version":1,"names":"a"}`:       "is damaged",
		`["a"]`:                           "is damaged",
		`{"names":["a"]}`:                 "is damaged: it has no version",
		`null`:                            "is damaged: it has no version",
		`{"version":2,"called":{"a":{}}}`: "has the version 2, and this program knows 1",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := LoadState(path, 1, &state{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v", text, err)
		} else if damaged := strings.Contains(want, "damaged"); errors.Is(err, ErrDamaged) != damaged {
			t.Errorf("%s: %v wraps ErrDamaged: %t", text, err, !damaged)
		}
	}
	if err := os.WriteFile(path, []byte(`{"version":1,"names":["a"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := LoadState(path, 1, &state{}); err != nil {
		t.Error(err)
	}
}

// What is loaded is of the version, and kept as it is when it is saved; what is refused
// names the file.
func FuzzLoadState(f *testing.F) {
	for _, seed := range []string{`{"version":1,"names":["a","b"]}`, `{"version":1}`, `{"version":1,"version":2}`, `{"version":1,"names":null}{}`, `{"Version":1}`, "[]", "\xff"} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path, again := filepath.Join(dir, "state.json"), filepath.Join(dir, "again.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var s, same state
		if err := LoadState(path, 1, &s); err != nil {
			if !strings.HasPrefix(err.Error(), path) {
				t.Errorf("%q: %v does not say which file it is", data, err)
			}
			return
		}
		if s.Version != 1 {
			t.Errorf("%q is of version %d", data, s.Version)
		}
		if err := errors.Join(SaveState(again, s, 0o600), LoadState(again, 1, &same)); err != nil || !slices.Equal(s.Names, same.Names) {
			t.Errorf("%q: %+v is read again as %+v, %v", data, s, same, err)
		}
	})
}
