//go:build crashpoints

// Package crashpoint, in builds for tests, stops the program where they want.
package crashpoint

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

var (
	mu     sync.Mutex
	passed = map[string]int{}
)

// Here stops the program (SIGSTOP) at the nth place of a kind that SIGNERD_STOP
// names, as in "after-3".
func Here(kind string) {
	mu.Lock()
	defer mu.Unlock()
	passed[kind]++
	if os.Getenv("SIGNERD_STOP") == fmt.Sprintf("%s-%d", kind, passed[kind]) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // it cannot fail for oneself
	}
}
