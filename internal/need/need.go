// Package need is for tests that use programs of the system.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Programs skips a test on a laptop that lacks a program, and fails it where
// REQUIRE=all says that nothing may be missing, as in CI.
func Programs(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Lacking(t, program+" is missing")
		}
	}
}

// Lacking skips or fails a test for lack of something else.
func Lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REQUIRE") == "all" {
		t.Fatal(what)
	}
	t.Skip(what)
}
