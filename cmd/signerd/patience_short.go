//go:build impatient

package main

import "time"

// patience is short in builds for tests.
const patience = 20 * time.Second
