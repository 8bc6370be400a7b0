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
	source := filepath.Join(root(), "etcd", version)
	pins, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return Etcd{}, fmt.Errorf("etcd %s cannot be built: %w", version, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Etcd{}, err
	}
	sum := sha256.Sum256(pins)
	dir := filepath.Join(cache, "signerd", "etcd-"+version+"-"+hex.EncodeToString(sum[:6]))
	etcd := Etcd{filepath.Join(dir, "etcd"), filepath.Join(dir, "etcdctl")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Etcd{}, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return Etcd{}, err
	}
	defer unlock()
	for target, path := range map[string]string{etcd.Server: "go.etcd.io/etcd/server/v3", etcd.Ctl: "go.etcd.io/etcd/etcdctl/v3"} {
		if _, err := os.Stat(target); err == nil {
			continue
		}
		if err := build(source, target, path); err != nil {
			return Etcd{}, err
		}
	}
	return etcd, nil
}

// BuildSignerd builds signerd from this tree to target.
func BuildSignerd(target string) error {
	return build(filepath.Dir(root()), target, "./cmd/signerd")
}

func build(dir, target, path string) error {
	partial := target + ".partial"
	cmd := exec.Command("go", "build", "-C", dir, "-trimpath", "-ldflags", "-s -w", "-o", partial, path)
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
