//go:build !impatient

package bootstrap

import "time"

// patience is how long a join waits for what passes: a signer that restarts,
// another member that joins, a cluster that is not healthy just now.
const patience = 2 * time.Minute

// undoTimeout bounds the way back.
const undoTimeout = 90 * time.Second
