package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signerd/signerd/signer"
)

// dailyRenewals is how often a name is renewed in the past that fill makes up:
// 1,000 names then write 3,000 lines a day.
const dailyRenewals = 3

// fill writes a ledger of so many lines, through the signer's own code, and
// gives its size.
func fill(dir string, lines int) (int64, error) {
	ledger, _, err := signer.OpenLedger(dir, signer.LedgerOptions{})
	if err != nil {
		return 0, err
	}
	names := min(lines, 1000)
	days := max(1, lines/names/dailyRenewals)
	begun := time.Now().AddDate(0, 0, -days)
	const together = 50 // share a commit mark
	for written := 0; written < lines; {
		n := min(together, lines-written)
		group, failures := sync.WaitGroup{}, make([]error, n)
		for i := range n {
			line := written + i
			at := begun.Add(time.Duration(line) * time.Since(begun) / time.Duration(lines)).UTC().Truncate(time.Second)
			group.Go(func() {
				failures[i] = ledger.Take(context.Background(), signer.Entry{
					Event: signer.Issued, Time: at, Serial: fmt.Sprintf("%032x", line+1), Profile: "client",
					Name: fmt.Sprintf("kubemaster-past-%d", line%names), NotAfter: at.Add(24 * time.Hour), Generation: "0123456789abcdef",
					Key: fmt.Sprintf("%064x", line%names), SSHKey: "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", Source: "10.0.0.21",
				}, signer.Ask)
			})
		}
		group.Wait()
		if err := errors.Join(failures...); err != nil {
			return 0, err
		}
		written += n
	}
	if err := ledger.Close(); err != nil {
		return 0, err
	}
	var size int64
	err = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			size += info.Size()
		}
		return err
	})
	return size, err
}
