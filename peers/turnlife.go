//go:build !impatient

package peers

import "time"

// turnLife is how long a turn outlives its last Hold: what a holder that died
// costs the others. It is far more than a restart takes, whose stop alone takes
// 8 s while a client watches.
const turnLife = time.Minute
