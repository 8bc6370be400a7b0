//go:build !impatient

package peers

import "time"

// Patience is how long a member that joins may be unreachable before its join
// counts as dead.
const Patience = 15 * time.Minute

// turnLife is how long a turn outlives its last Hold: what a holder that died
// costs the others. It is far more than a restart takes, whose stop alone takes
// 8 s while a client watches.
const turnLife = time.Minute
