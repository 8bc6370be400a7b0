//go:build !impatient

package renew

import "time"

// backPatience is how long etcd may take to be back after a restart.
const backPatience = 2 * time.Minute
