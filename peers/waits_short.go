//go:build impatient

package peers

import "time"

// Patience is short in builds for tests.
const Patience = 20 * time.Second

// turnLife is short in builds for tests.
const turnLife = 15 * time.Second
