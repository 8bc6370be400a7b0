//go:build !crashpoints

package bootstrap

// crashPoint is where tests cut the power: in builds with the tag crashpoints.
func crashPoint(string) {}
