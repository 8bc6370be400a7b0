//go:build !impatient

package main

import "time"

// patience is how long a member that joins may be unreachable before its join
// counts as dead.
const patience = 15 * time.Minute
