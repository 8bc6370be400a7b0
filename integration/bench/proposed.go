package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/signerd/signerd/integration/lab"
)

// benchDir is where this program's source is.
func benchDir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// buildProposed builds bare with golang.org/x/crypto as doc/design/x25519.md
// proposes it, from a copy: nothing else is built so.
func buildProposed(target string) error {
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/crypto")
	list.Dir = benchDir()
	source, err := list.Output()
	if err != nil {
		return fmt.Errorf("looking for golang.org/x/crypto: %w", err)
	}
	copied := target + ".source"
	if err := os.CopyFS(copied, os.DirFS(strings.TrimSpace(string(source)))); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"chmod", "-R", "u+w", copied},
		{"patch", "-p1", "--quiet", "-d", copied, "-i", filepath.Join(benchDir(), "../../doc/design/x25519.diff")},
		{"cp", filepath.Join(benchDir(), "../go.mod"), target + ".mod"},
		{"cp", filepath.Join(benchDir(), "../go.sum"), target + ".sum"},
		{"go", "mod", "edit", "-replace", "golang.org/x/crypto=" + copied, target + ".mod"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	}
	return lab.Build("", target, "./bench/bare", "-modfile", target+".mod")
}
