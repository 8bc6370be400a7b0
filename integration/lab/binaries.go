// Package lab runs the real things on loopback: etcd built from its Go module,
// signerd built from this tree, and the stock ssh, openssl and etcdctl. Tests
// and the demonstration use it. Whatever it starts ends with the process that
// uses it.
package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// EtcdVersions are the minor versions of etcd that can be built.
var EtcdVersions = []string{"v3.7", "v3.6", "v3.5"}

// Etcd is where the programs of one version of etcd are.
type Etcd struct{ Server, Ctl string }

// root is the directory of the integration module.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(file))
}

// BuildEtcd builds etcd and etcdctl of a minor version, static and stripped,
// into the user's cache, where the next run finds them.
func BuildEtcd(version string) (Etcd, error) {
	dir, err := BuildCached(filepath.Join("etcd", version), map[string]string{
		"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
	})
	return Etcd{filepath.Join(dir, "etcd"), filepath.Join(dir, "etcdctl")}, err
}

// BuildCached builds programs, by name, from their packages, static and
// stripped, into a directory of the user's cache, which it gives. module is the
// directory below integration whose go.mod and go.sum pin them; as long as
// those are the same, the next call finds what this one built.
func BuildCached(module string, programs map[string]string) (dir string, err error) {
	source := filepath.Join(root(), module)
	pins, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("%s cannot be built: %w", module, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(pins)
	dir = filepath.Join(cache, "signerd", strings.ReplaceAll(module, "/", "-")+"-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	for name, path := range programs {
		target := filepath.Join(dir, name)
		if _, err := os.Stat(target); err == nil {
			continue
		}
		if err := Build(source, target, path); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// BuildSignerd builds signerd from this tree to target, with the tags that the
// Makefile gives it, and more.
func BuildSignerd(target string, tags ...string) error {
	return Build(filepath.Dir(root()), target, "./cmd/signerd", "-tags", strings.Join(append(tags, "grpcnotrace"), ","))
}

// Build builds the program of a package, static and stripped, to target. dir is
// the module that pins it, below integration if it is relative.
func Build(dir, target, path string, flags ...string) error {
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root(), dir)
	}
	partial := fmt.Sprintf("%s.partial-%d", target, os.Getpid()) // another package's tests may build it too
	args := append([]string{"build", "-C", dir, "-trimpath", "-ldflags", "-s -w", "-o", partial}, flags...)
	cmd := exec.Command("go", append(args, path)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", path, err, output)
	}
	return os.Rename(partial, target)
}

func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}
