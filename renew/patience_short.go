//go:build impatient

package renew

import "time"

// backPatience is short in builds for tests.
const backPatience = 15 * time.Second
