//go:build !shortlives

package signer

import "time"

// How long certificates live.
const (
	clientLife = 24 * time.Hour
	memberLife = 30 * 24 * time.Hour

	// backdate is how far certificates begin before they are made: the clock skew
	// between machines that is forgiven.
	backdate = 5 * time.Minute
)
