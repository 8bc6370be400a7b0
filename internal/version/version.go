// Package version says which build this is, from what the Go toolchain
// recorded in it.
package version

import "runtime/debug"

// String gives the module's version, or the commit where there is none.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return "devel"
}
