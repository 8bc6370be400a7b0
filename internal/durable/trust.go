package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ReadSecret reads a private key's file. It refuses what is not a regular file
// of this user or root, or what anybody else may read or write. Root may read
// every user's: it looks after the daemon's files.
func ReadSecret(path string) ([]byte, error) {
	return readChecked(path, func(info fs.FileInfo) error {
		if err := checkOwner(path, info); err != nil && os.Geteuid() != 0 {
			return err
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return fmt.Errorf("%s: mode %04o lets others at a private key: chmod 600 %s", path, mode, path)
		}
		return nil
	})
}

// ReadTrusted reads a file that decides who may do what. It refuses what
// anybody but this user and root could have changed, the file itself or a
// directory above it, as sshd's StrictModes does; a directory with the sticky
// bit (/tmp) is fine, since names in it are safe from others.
func ReadTrusted(path string) ([]byte, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// Where links lead counts, not where they stand.
	if absolute, err = filepath.EvalSymlinks(absolute); err != nil {
		return nil, err
	}
	for dir := filepath.Dir(absolute); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		if err := checkOwner(dir, info); err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSticky == 0 {
			if err := checkUnwritable(dir, info); err != nil {
				return nil, err
			}
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return readChecked(absolute, func(info fs.FileInfo) error {
		return errors.Join(checkOwner(path, info), checkUnwritable(path, info))
	})
}

// readChecked looks at the file that it reads, not at a name that may change.
func readChecked(path string, check func(fs.FileInfo) error) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := check(info); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

func checkOwner(path string, info fs.FileInfo) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: chown it to root or to the user that signerd runs as", path, owner)
	}
	return nil
}

func checkUnwritable(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s: mode %04o lets others change it: chmod go-w %s", path, mode, path)
	}
	return nil
}
