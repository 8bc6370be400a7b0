//go:build crashpoints

package bootstrap

import (
	"fmt"
	"os"
	"syscall"
)

var passed = map[string]int{}

// crashPoint stops the program at the nth point of a kind that FIRST_BOOT_STOP
// names, as in "after-3", for the test that then cuts the power.
func crashPoint(kind string) {
	passed[kind]++
	if os.Getenv("FIRST_BOOT_STOP") == fmt.Sprintf("%s-%d", kind, passed[kind]) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // it cannot fail for oneself
	}
}
