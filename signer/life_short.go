//go:build shortlives

package signer

import "time"

// Builds for tests, in which nobody waits for days.
const (
	clientLife = 2 * time.Minute
	memberLife = 2 * time.Minute
	backdate   = 10 * time.Second
)
