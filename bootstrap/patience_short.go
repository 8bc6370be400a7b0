//go:build impatient

package bootstrap

import "time"

// Builds for tests wait less.
const (
	patience    = 20 * time.Second
	undoTimeout = 5 * time.Second
)
