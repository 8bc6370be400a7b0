//go:build !impatient

package renew

import "time"

const (
	// backPatience is how long etcd may take to be back after a restart.
	backPatience = 2 * time.Minute
	// settle is how long the cluster has to be well before and after a restart:
	// etcd itself counts on a member only after so long (HealthInterval).
	settle = 5 * time.Second
)
