// Package version says which build this is: the package's version, or what the Go
// toolchain recorded.
package version

import "runtime/debug"

// release is the version of the package that the program is in; packaging/build
// sets it.
var release string

// String gives the package's version, the module's, or the commit.
func String() string {
	if release != "" {
		return release
	}
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
