package firstboot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/internal/need"
)

// The RPMs are installed, upgraded and erased, in a root of their own: there is
// no machine here that is made of RPMs.
func TestRPM(t *testing.T) {
	w := here(t)
	need.Programs(t, "rpm")
	root := filepath.Join(t.TempDir(), "root")
	if err := ran(exec.Command("cp", "-a", w.Bed.Base(), root)); err != nil {
		t.Fatal(err)
	}
	if err := ran(exec.Command("mount", "-t", "proc", "proc", filepath.Join(root, "proc"))); err != nil { // systemd-tmpfiles wants it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ran(exec.Command("umount", filepath.Join(root, "proc"))); err != nil {
			t.Error(err)
		}
	})
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	packages := func(version string) []string {
		if _, err := w.Packages(version, releaseTags); err != nil {
			t.Fatal(err)
		}
		found, err := filepath.Glob(filepath.Join(w.Dir, "dist-"+version, "*.rpm"))
		if err != nil || len(found) != 2 {
			t.Fatalf("%v, %v", found, err)
		}
		return found
	}
	there := func(path string) bool {
		_, err := os.Lstat(filepath.Join(root, path))
		return err == nil
	}
	rpm(append([]string{"--nodeps", "--install"}, packages("2.0.0")...)...)
	for _, path := range []string{"/usr/bin/signerd", "/root/setup/first-boot", "/root/setup/first-boot.sh", "/var/lib/signerd", "/usr/lib/systemd/system/signerd.service"} {
		if !there(path) {
			t.Errorf("%s is missing", path)
		}
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), "signerd:") || !strings.Contains(string(passwd), "etcd:") {
		t.Errorf("the users are %s, %v", passwd, err)
	}

	// As after a first boot.
	settings := filepath.Join(root, "etc/default/signerd")
	for path, content := range map[string]string{settings: "GOMEMLIMIT=1GiB\n", filepath.Join(root, "var/lib/signerd-first-boot/receipt.json"): "{}"} {
		fleet.Write(t, path, content)
	}
	if err := os.RemoveAll(filepath.Join(root, "root/setup")); err != nil {
		t.Fatal(err)
	}
	rpm(append([]string{"--nodeps", "--upgrade"}, packages("2.1.0")...)...)
	if out := rpm("--query", "signerd", "signerd-first-boot"); strings.Count(out, "-2.1.0-") != 2 || strings.Count(out, "\n") != 2 {
		t.Errorf("after the upgrade there is %s", out)
	}
	if there("/root/setup") {
		t.Error("the upgrade brought the setup folder back")
	}
	if data, err := os.ReadFile(settings); err != nil || string(data) != "GOMEMLIMIT=1GiB\n" {
		t.Errorf("the settings are %q, %v", data, err)
	}
	fleet.Write(t, filepath.Join(root, "var/lib/signerd/ledger-of-somebody"), "x")
	rpm("--nodeps", "--erase", "signerd", "signerd-first-boot")
	if there("/usr/bin/signerd") || !there("/var/lib/signerd/ledger-of-somebody") {
		t.Error("erasing leaves the program, or takes the state")
	}
}
