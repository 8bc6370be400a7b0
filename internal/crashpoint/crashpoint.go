//go:build !crashpoints

// Package crashpoint names the places where tests cut the power or stop a
// program for a while. In releases it does nothing.
package crashpoint

// Here is one of the places of a kind.
func Here(string) {}
