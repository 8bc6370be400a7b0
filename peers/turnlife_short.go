//go:build impatient

package peers

import "time"

// turnLife is short in builds for tests.
const turnLife = 15 * time.Second
