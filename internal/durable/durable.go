// Package durable reads and writes the files that must survive: after a crash
// or a power cut at any point a path holds the old content or the new one,
// whole, with the mode it was given, and the directory knows it.
//
// It is used instead of renameio.WriteFile, which keeps an existing file's
// mode, may stage a key in $TMPDIR, and leaves the directory unsynced.
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Replace puts data at path, whatever was there before, with exactly mode.
func Replace(path string, data []byte, mode fs.FileMode) error {
	staged, err := stage(path, bytes.NewReader(data), mode)
	if err != nil {
		return err
	}
	defer staged.Cleanup() //nolint:errcheck // after success there is nothing to clean up
	if err := staged.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Create puts data at path with exactly mode. If something is there already it
// changes nothing and returns an error that is fs.ErrExist.
func Create(path string, data []byte, mode fs.FileMode) error {
	return CreateFrom(path, bytes.NewReader(data), mode)
}

// CreateFrom is Create for data that comes from a reader.
func CreateFrom(path string, data io.Reader, mode fs.FileMode) error {
	return create(Owner{os.Geteuid(), os.Getegid()}, path, data, mode)
}

// Sweep removes what crashes have left staged for path. Nobody else may be putting
// anything there meanwhile.
func Sweep(path string) error {
	staged, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"*"))
	for _, left := range staged {
		err = errors.Join(err, os.Remove(left))
	}
	return err
}

// Owner is whom a file is to belong to.
type Owner struct{ UID, GID int }

// Become makes this process, if root started it, one of the owner's, for good.
func (o Owner) Become() error {
	if os.Geteuid() != 0 || o.UID == 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(o.GID), syscall.Setuid(o.UID))
}

// CreateFor is Create for a file that belongs to another user from the moment
// that it has its name.
func CreateFor(owner Owner, path string, data []byte, mode fs.FileMode) error {
	return create(owner, path, bytes.NewReader(data), mode)
}

// OwnerOf gives whom a file or directory belongs to.
func OwnerOf(path string) (Owner, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Owner{}, err
	}
	return ownerOf(info), nil
}

func ownerOf(info fs.FileInfo) Owner {
	stat := info.Sys().(*syscall.Stat_t)
	return Owner{int(stat.Uid), int(stat.Gid)}
}

func create(owner Owner, path string, data io.Reader, mode fs.FileMode) error {
	staged, err := stage(path, data, mode)
	if err != nil {
		return err
	}
	defer staged.Cleanup() //nolint:errcheck // removes the staged name; the file stays under path
	// A daemon may be forbidden to ask for what is so already.
	if owner != (Owner{os.Geteuid(), os.Getegid()}) {
		if err := staged.Chown(owner.UID, owner.GID); err != nil {
			return err
		}
	}
	if err := staged.Sync(); err != nil {
		return err
	}
	if err := os.Link(staged.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func stage(path string, data io.Reader, mode fs.FileMode) (*renameio.PendingFile, error) {
	staged, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(staged, data); err != nil {
		return nil, errors.Join(err, staged.Cleanup())
	}
	return staged, nil
}

// Symlink makes path a symbolic link to target, whatever was there before.
func Symlink(target, path string) error {
	if err := renameio.Symlink(target, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// CreateDir makes the directory path, mode 0700, with the files that fill puts
// into it: all of them or no directory. If path is there already, and is not
// an empty directory, it changes nothing and returns an error that is
// fs.ErrExist. What root makes belongs to the owner of the directory above, as
// that is the daemon's. What an interrupted CreateDir left beside path is swept
// away: nobody has seen it.
func CreateDir(path string, fill func(staging string) error) error {
	if entries, err := os.ReadDir(path); err == nil && len(entries) > 0 {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	staging := filepath.Clean(path) + ".partial"
	if err := os.RemoveAll(staging); err != nil {
		return err
	}
	if err := os.Mkdir(staging, 0o700); err != nil {
		return err
	}
	dir, err := os.OpenFile(staging, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	if err := fill(staging); err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	if err := errors.Join(handOver(dir), dir.Sync()); err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	// rename(2) replaces an empty directory and no other; os.Rename replaces
	// none.
	if err := unix.Rename(staging, path); err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	return SyncDir(filepath.Dir(path))
}

// HandOver gives what root made in a directory to whom that belongs, and the directory too,
// if root made it, to the owner of the one above. One that is not there, or is a link, is
// left at that.
func HandOver(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if info, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(handOver(dir), dir.Close())
}

// handOver goes by the open directory, not by names: who owns the one above can
// rename what is in it.
func handOver(dir *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	owner := ownerOf(info)
	if owner.UID == 0 {
		if owner, err = OwnerOf(filepath.Dir(dir.Name())); err != nil {
			return err
		}
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := unix.Fchownat(int(dir.Fd()), name, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, fs.ErrNotExist) { // a staged one has come and gone
			return fmt.Errorf("handing over %s: %w", name, err)
		}
	}
	return dir.Chown(owner.UID, owner.GID)
}

// SyncDir makes the names in a directory durable: fsync(2) of a file does not
// reach the directory that holds its name.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return errors.Join(fmt.Errorf("syncing directory %s: %w", path, err), dir.Close())
	}
	return dir.Close()
}
