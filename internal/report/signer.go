package report

import (
	"errors"
	"io/fs"
	"time"

	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/signer"
)

// replaceCA is what helps against the end of a CA.
const replaceCA = "replace it: ssh signer@HOST rotate prepare (/usr/share/doc/signerd/rotation.md)"

// Signer looks at the CA that this machine signs with, and at the names in its
// ledger that should have renewed and did not.
func Signer(authority *signer.Authority, ledger string, now time.Time) []Finding {
	all := append(standing(authority), backups(authority)...)
	for _, g := range authority.Generations() {
		f := expiring("generation", g.ID, g.Certificate, now, caWarns, replaceCA)
		if g.Role != signer.Active { // it signs nothing, and may expire
			f.State, f.Says = OK, ""
		}
		if f.Says == "" {
			f.Says = string(g.Role)
		}
		all = append(all, f)
	}
	holds, err := signer.ReadExpected(ledger, now)
	if errors.Is(err, fs.ErrNotExist) {
		return all // nothing was signed yet
	}
	if err != nil {
		return append(all, Broken("ledger", ledger, err)...)
	}
	for _, h := range holds {
		f := Finding{What: h.Profile, Which: h.Name, NotAfter: &h.NotAfter}
		switch {
		case now.After(h.NotAfter):
			f.State, f.Says = Warning, "it expired without being renewed: look at its machine, or say that it is gone: release "+h.Name
		case h.Missed(now):
			f.State, f.Says = Warning, "it should have been renewed by now: look at its machine"
		}
		all = append(all, f)
	}
	return all
}

// standing says why this machine must not sign, or not alone.
func standing(authority *signer.Authority) []Finding {
	const what, which = "signer", "of this machine"
	switch err := rotation.Superseded(authority); {
	case err != nil:
		return Broken(what, which, err)
	case authority.Restored():
		return Broken(what, which, rotation.ErrUnclaimed)
	case authority.Untold():
		return []Finding{found(Warning, what, which, "etcd has not been told yet that it signs: another one may sign too")}
	}
	return nil
}

// backups looks at whether the CA as it is could be restored.
func backups(authority *signer.Authority) []Finding {
	const what, which = "backup", "of the CA"
	last, err := authority.LastBackup()
	if err != nil {
		return Broken(what, which, err)
	}
	if last == nil {
		return []Finding{found(Warning, what, which, "there is none: if this machine is lost, so is the CA: signerd ca backup")}
	}
	made := last.Time.UTC().Format("2006-01-02 15:04") + "Z"
	if !authority.Covers(last) {
		return []Finding{found(Warning, what, which, "the last one, of "+made+", is of before a step of a rotation, and would undo it: signerd ca backup")}
	}
	return []Finding{found(OK, what, which, "the last one is of "+made)}
}
