package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/wire"
)

// begin takes the lock and finds out what an earlier run has done.
func begin(command string, observe Observer) (*boot, func() error, error) {
	if receipt, err := ReadReceipt(); err != nil {
		return nil, nil, err
	} else if receipt != nil {
		return nil, nil, fmt.Errorf("%w: it is %s of %s since %s; if it was removed there, /usr/share/doc/signerd/runbook.md says how the machine can be used again (A dead member)",
			ErrDone, receipt.Name, receipt.Cluster, receipt.Finished.UTC().Format(time.DateTime))
	}
	release, err := lock()
	if err != nil {
		return nil, nil, err
	}
	// A dry run changes nothing that counts by it.
	if err := errors.Join(durable.Sweep(journalPath(StateDir)), durable.Sweep(receiptPath(StateDir))); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	b := &boot{observe: observe, now: time.Now, plan: plan{Command: command}}
	if b.journal, err = readJournal(StateDir); err == nil && b.journal != nil {
		b.plan = b.journal.Plan
		if b.plan.Command != command {
			err = fmt.Errorf("%w: a first-boot %s was begun here on %s: finish that first", ErrPreflight, b.plan.Command, b.journal.Begun.UTC().Format(time.DateTime))
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return b, release, nil
}

// open begins the journal, unless an earlier run has.
func (b *boot) open() error {
	if b.journal != nil {
		return nil
	}
	if err := errors.Join(os.MkdirAll(StateDir, 0o700), durable.SyncDir(filepath.Dir(StateDir))); err != nil {
		return err
	}
	b.journal = &journal{Version: journalVersion, Plan: b.plan, Begun: b.now(), Found: b.found, dir: StateDir}
	return b.journal.write()
}

// same refuses options that say something else than the run that began: of each
// the name, what is said, and what was begun, both in their canonical form.
func (p *preflight) same(when time.Time, options [][3]string) {
	for _, o := range options {
		switch option, said, begun := o[0], o[1], o[2]; {
		case said == "" || said == begun:
		case begun == "":
			p.problem("%s is %q, and what was begun on %s has none: run it again without the option", option, said, when.UTC().Format(time.DateTime))
		default:
			p.problem("%s is %q, and what was begun on %s has %q: run it again with that, or without the option",
				option, said, when.UTC().Format(time.DateTime), begun)
		}
	}
}

// finish writes the receipt.
func (b *boot) finish(signerAddress, signerKey string) (string, error) {
	bundle, err := os.ReadFile(own.Trust)
	if err != nil {
		return "", err
	}
	ca, err := member.Fingerprints(bundle)
	if err != nil {
		return "", err
	}
	s := Summary{
		Command: b.plan.Command, Cluster: b.plan.Cluster, Name: b.plan.Name, Address: b.plan.address().String(),
		Finished: b.now().UTC().Truncate(time.Second), CA: ca, SignerKey: signerKey, Signer: signerAddress,
	}
	if len(b.plan.BackupRecipients) > 0 {
		s.Backup = BackupPath(b.plan.Cluster)
	}
	return receiptPath(StateDir), writeReceipt(StateDir, &s)
}

// setupFiles are what the package puts into the setup folder.
var setupFiles = []string{"first-boot", "first-boot.sh"}

// Clean removes the setup folder after success: exactly what was shipped, and
// then the folder, if nothing else is in it. It says whether the folder is gone.
func Clean(dir string) (gone bool, err error) {
	for _, name := range setupFiles {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	err = os.Remove(dir)
	if left, readErr := os.ReadDir(dir); readErr == nil && len(left) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, durable.SyncDir(filepath.Dir(dir))
}

// absolute gives the path of an option's file as the next run, which may be
// elsewhere, finds it.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return full
}

// canonical gives a list of addresses as joined would, or as it is if one of
// them is none: then it is refused elsewhere, or not the same.
func canonical(texts []string) string {
	var addresses []wire.Address
	for _, text := range texts {
		a, err := wire.ParseAddress(text)
		if err != nil {
			return strings.Join(texts, ",")
		}
		addresses = append(addresses, a)
	}
	return wire.JoinAddresses(addresses)
}
