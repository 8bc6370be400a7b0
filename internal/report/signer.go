package report

import (
	"errors"
	"io/fs"
	"time"

	"github.com/signerd/signerd/signer"
)

// Signer looks at the CA that this machine signs with, and at the names in its
// ledger that should have renewed and did not.
func Signer(generations []*signer.Generation, ledger string, now time.Time) []Finding {
	var all []Finding
	for _, g := range generations {
		f := expiring("generation", g.ID, g.Certificate, now, caWarns, "rotate the CA")
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
