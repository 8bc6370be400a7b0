package signer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/signerd/signerd/internal/durable"
)

// reserveSize is the disk space that is kept, twice over: so much is allocated
// ahead of the last line, for what ends a hold or voids a certificate when the
// disk is full, and so much must be free for anything to be issued.
const reserveSize = 256 << 10

// ledgerFile is the file that lines are appended to: the latest day's.
type ledgerFile struct {
	dir       string
	name      string // empty: no file yet
	file      *os.File
	size      int64     // committed bytes
	allocated int64     // bytes that the file may grow to without asking for space
	dirty     bool      // something may stand after size
	settled   time.Time // the day of the file that is settledFiles back, when a new one was begun; zero once tidied
	looked    time.Time // when there was free space last
}

// openLedgerFile opens the file that the ledger ends in, and cuts off what is
// not committed.
func openLedgerFile(dir string, end tail) (*ledgerFile, error) {
	f := &ledgerFile{dir: dir}
	if end.file == "" {
		return f, nil
	}
	if err := f.open(end.file, os.O_RDWR); err != nil {
		return nil, err
	}
	f.size, f.dirty = end.size, end.torn > 0
	if err := f.rewind(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *ledgerFile) open(name string, flags int) error {
	file, err := os.OpenFile(filepath.Join(f.dir, name), flags, 0o600)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	f.file, f.name, f.size, f.allocated, f.dirty = file, name, 0, 0, false
	return nil
}

// append puts lines, which end in a commit mark, on disk, in the file of the
// day. After an error the committed part is as before.
func (f *ledgerFile) append(lines []byte, now time.Time) error {
	if err := f.rewind(); err != nil {
		return err
	}
	if err := f.turn(now.UTC().Format(fileLayout)); err != nil {
		return err
	}
	f.dirty = true
	if _, err := f.file.WriteAt(lines, f.size); err != nil {
		return errors.Join(err, f.rewind())
	}
	// fdatasync(2) syncs the size too, as far as reading the data needs it.
	if err := unix.Fdatasync(int(f.file.Fd())); err != nil {
		return errors.Join(fmt.Errorf("syncing the ledger: %w", err), f.rewind())
	}
	f.size += int64(len(lines))
	f.dirty = false
	return nil
}

// settledFiles is after how many files of further days a day counts as past: a clock that
// is ahead begins so many only if it stays so for as many days, or jumps as often.
const settledFiles = 8

// turn begins the day's file. A clock that went back does not: the names sort
// as the chain runs.
func (f *ledgerFile) turn(name string) error {
	if name <= f.name {
		return nil
	}
	next := ledgerFile{dir: f.dir}
	names, err := ledgerFiles(f.dir)
	if err != nil {
		return err
	}
	if n := len(names) - settledFiles; n >= 0 {
		if next.settled, err = time.Parse(fileLayout, names[n]); err != nil {
			return fmt.Errorf("the ledger's file %s is not named after a day: %w", names[n], err)
		}
	}
	if err := next.open(name, os.O_CREATE|os.O_EXCL|os.O_RDWR); err != nil {
		return err
	}
	if err := durable.SyncDir(f.dir); err != nil {
		return errors.Join(err, next.close(), os.Remove(filepath.Join(f.dir, name)))
	}
	// All of the old file is on disk; only its reserve is given back here.
	_ = f.close()
	*f = next
	return nil
}

// rewind cuts off what an append left that failed, or a crash.
func (f *ledgerFile) rewind() error {
	if !f.dirty {
		return nil
	}
	if err := errors.Join(f.file.Truncate(f.size), f.file.Sync()); err != nil {
		return fmt.Errorf("cutting off an unfinished batch: %w", err)
	}
	f.dirty, f.allocated = false, 0 // nothing is allocated ahead any more
	return nil
}

// lookEvery is how often free space is looked for, while lines that are no
// longer than lineSize fit into what is allocated ahead: others may take what
// was free in between, but not that.
const (
	lookEvery = 10 * time.Millisecond
	lineSize  = 1 << 10
)

// reserve keeps the reserve of disk space for some more lines, and says why it
// cannot.
func (f *ledgerFile) reserve(now time.Time, lines int) error {
	if now.Sub(f.looked).Abs() >= lookEvery || f.allocated-f.size < int64(lines*lineSize) {
		if err := freeSpace(f.dir); err != nil {
			return err
		}
		f.looked = now
	}
	if f.file == nil || f.allocated-f.size > reserveSize/2 {
		return nil
	}
	err := unix.Fallocate(int(f.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, f.size, reserveSize)
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) {
		// Where the file system cannot allocate ahead, a write just fails.
		f.allocated = f.size + reserveSize
		return nil
	}
	return fmt.Errorf("allocating space for the ledger: %w", err)
}

// freeSpace refuses a disk on which less than the reserve is free.
func freeSpace(dir string) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("asking for free disk space: %w", err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < reserveSize {
		return fmt.Errorf("%d bytes are free on the ledger's disk, less than %d: %w", free, reserveSize, unix.ENOSPC)
	}
	return nil
}

// prune removes the files of days before a time. The line that a kept file
// begins with says what it followed.
func (f *ledgerFile) prune(before time.Time) {
	names, err := ledgerFiles(f.dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if name >= before.UTC().Format(fileLayout) || name == f.name {
			return
		}
		// One by one, so that no gap is ever left. What stays is tried again
		// with the next day's file.
		if err := errors.Join(os.Remove(filepath.Join(f.dir, name)), durable.SyncDir(f.dir)); err != nil {
			return
		}
	}
}

func (f *ledgerFile) close() error {
	if f.file == nil {
		return nil
	}
	return errors.Join(f.file.Truncate(f.size), f.file.Sync(), f.file.Close())
}
