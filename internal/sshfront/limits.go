package sshfront

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what clients can make the server do. The zero value admits
// nobody; signerd.yaml(5) has the defaults. internal/config has the same fields
// in the same order, with their names there.
type Limits struct {
	LoginGrace     time.Duration // from accept to login, absolute
	ConnectionLife time.Duration // from accept to the end, absolute
	Idle           time.Duration // without a byte either way
	Unused         time.Duration // logged in without a session
	Exec           time.Duration // from a session's opening to its command
	Command        time.Duration // for a command, and for its client to take the answer
	Linger         time.Duration // for stdin that still comes after the answer

	Connections           int // at once
	Unauthenticated       int // of these, before login
	PerSource             int // connections at once from one address, or IPv6 /64
	PerSourceUnauth       int // of these, before login
	PerSourcePerSecond    int // new connections, burst the same
	Sessions              int // at once on a connection
	SessionsPerConnection int // in all
	RequestsPerSession    int // channel requests

	Exempt       []netip.Prefix // networks that the per-source limits do not bind
	HealthChecks []netip.Prefix // networks whose connections may end before the banner without a log line
}

const (
	maxAuthTries = 4       // the fourth key that is not let in ends the connection
	maxLinger    = 8 << 20 // bytes of stdin taken after the answer
	// refusalPatience is how long a refused client may take to begin to send.
	refusalPatience = 100 * time.Millisecond

	maxSources = 4096 // addresses remembered for their rate, and at least so many as known
)

// filesBeside are open files that are no client's connection.
const filesBeside = 100

// checkFiles refuses limits that need more open files than the process may
// have (getrlimit(2), RLIMIT_NOFILE; the Go runtime has raised the soft limit).
func (l Limits) checkFiles() error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("asking for the limit of open files: %w", err)
	}
	if need := uint64(l.Connections + filesBeside); files.Cur < need {
		return fmt.Errorf("%d connections need %d open files, and the process may have %d: raise LimitNOFILE or lower limits: connections",
			l.Connections, need, files.Cur)
	}
	return nil
}

func anyContains(networks []netip.Prefix, address netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}
