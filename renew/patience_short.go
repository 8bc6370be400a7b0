//go:build impatient

package renew

import "time"

// Builds for tests, in which nobody waits for long.
const (
	backPatience = 15 * time.Second
	settle       = 2 * time.Second
)
