package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// holds checks a file's content and mode, and that nothing else is beside it.
func holds(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Errorf("%s holds %q, %v; want %q", path, data, err, content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("%s: %v, %v; want mode %o", path, info.Mode(), err, mode)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside %s: %v, %v", path, entries, err)
	}
}

func TestReplaceSetsTheModeOfAnExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, 0o644)
	if err := Replace(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "new", 0o600)
}

func TestReplaceKeepsTheOldFileWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, "inside"), 0o600)
	if err := Replace(path, []byte("new"), 0o600); err == nil {
		t.Fatal("a directory was replaced")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("the failure left %v", entries)
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("first"), 0o640); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "first", 0o640)
	if err := Create(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a file: %v", err)
	}
	holds(t, path, "first", 0o640)
}

func TestSymlinkReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "link")
	for _, target := range []string{"a", "b"} {
		if err := Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Readlink(path); err != nil || now != target {
			t.Errorf("the link leads to %q, %v; want %q", now, err, target)
		}
	}
}

func TestCreateDirIsAllOrNothing(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "dir")
	fill := func(err error) func(string) error {
		return func(staging string) error { return errors.Join(Create(filepath.Join(staging, "key"), nil, 0o600), err) }
	}
	if err := CreateDir(path, fill(errors.New("power cut"))); err == nil {
		t.Fatal("a failed fill made a directory")
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 0 {
		t.Errorf("the failure left %v", entries)
	}
	// What a killed process left is swept away.
	if err := os.Mkdir(path+".partial", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path+".partial", "old"), 0o600)
	// An empty directory, as tmpfiles.d makes it, may be there.
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := CreateDir(path, fill(nil)); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 1 || entries[0].Name() != "key" {
		t.Errorf("the directory holds %v", entries)
	}
	if err := CreateDir(path, fill(nil)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateDir over a directory: %v", err)
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o644: false} {
		path := filepath.Join(dir, "key")
		write(t, path, mode)
		if _, err := ReadSecret(path); (err == nil) != ok {
			t.Errorf("mode %o: %v", mode, err)
		} else if err != nil && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v does not say what to do", mode, err)
		}
	}
	if _, err := ReadSecret(dir); err == nil {
		t.Error("a directory was read as a key")
	}
	if _, err := ReadSecret(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing key: %v", err)
	}
}

func TestReadTrusted(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	write(t, path, 0o644)
	if _, err := ReadTrusted(path); err != nil {
		t.Errorf("a file of our own: %v", err)
	}
	for _, change := range []struct {
		what string
		path string
		mode fs.FileMode
	}{
		{"a file that the group may write", path, 0o664},
		{"a directory that all may write", dir, 0o777},
		{"a directory above that the group may write", parent, 0o770},
	} {
		info, err := os.Stat(change.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(change.path, change.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTrusted(path); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("%s: %v", change.what, err)
		}
		if err := os.Chmod(change.path, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	// A link does not hide where the file really is.
	open := filepath.Join(t.TempDir(), "open")
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Symlink(filepath.Join(open, "file"), link)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(open, "file"), 0o600)
	if _, err := ReadTrusted(link); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a link into an open directory: %v", err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTrusted(link); err != nil {
		t.Errorf("a link into a closed directory: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTrusted(path); err == nil || !strings.Contains(err.Error(), "chown") {
			t.Errorf("a file of another user: %v", err)
		}
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	release, err = Lock(path)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

// What root makes is the daemon's, who owns the directory above.
func TestCreateDirHandsOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes files for others")
	}
	parent := t.TempDir()
	if err := os.Chown(parent, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(parent, "dir")
	if err := CreateDir(path, func(staging string) error { return Create(filepath.Join(staging, "key"), []byte("k"), 0o600) }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, filepath.Join(path, "key")} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 12345 || owner.Gid != 12346 {
			t.Errorf("%s belongs to %d:%d", name, owner.Uid, owner.Gid)
		}
	}
	// And root, who looks after it, can read it.
	if _, err := ReadSecret(filepath.Join(path, "key")); err != nil {
		t.Error(err)
	}
}

// What root left in a directory belongs to whom that belongs, wherever it stands.
func TestHandOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes files for others")
	}
	for what, test := range map[string]struct{ above, dir, want int }{
		"the daemon's":                     {12345, 12345, 12345},
		"the daemon's in root's":           {0, 12345, 12345},
		"root's in the daemon's":           {12345, 0, 12345},
		"root's in root's":                 {0, 0, 0},
		"a link in the daemon's to root's": {12345, 0, 0},
	} {
		parent := t.TempDir()
		dir, path := filepath.Join(parent, "dir"), filepath.Join(parent, "dir")
		if what == "a link in the daemon's to root's" {
			dir = t.TempDir()
			if err := os.Symlink(dir, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		left := filepath.Join(dir, "left")
		if err := errors.Join(os.WriteFile(left, nil, 0o600), os.Chown(parent, test.above, 0), os.Chown(dir, test.dir, 0)); err != nil {
			t.Fatal(err)
		}
		if err := HandOver(path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, name := range []string{dir, left} {
			if owner, err := OwnerOf(name); err != nil || owner.UID != test.want {
				t.Errorf("%s: %s belongs to %d, %v", what, name, owner.UID, err)
			}
		}
	}
	if err := HandOver(filepath.Join(t.TempDir(), "missing")); err != nil {
		t.Error(err)
	}
}

// What a crash left staged is swept away, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "member.crt")
	for _, name := range []string{"member.crt", ".member.crt123456", ".member.key1", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Sweep(path); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range left {
		left[i] = filepath.Base(path)
	}
	if got := strings.Join(left, " "); got != ".member.key1 member.crt other" {
		t.Errorf("left are %s", got)
	}
}

// The names that Sweep removes are those that a write is staged under.
func TestSweepKnowsStagedNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "member.crt")
	staged, err := stage(path, strings.NewReader("x"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := Sweep(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(staged.Name()); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", staged.Name(), err)
	}
	_ = staged.Cleanup() // its file is gone
}
