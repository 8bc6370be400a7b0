package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/internal/need"
)

// ssh-audit finds nothing to say of the strict profile, nothing to warn of in
// either, and in both no more than the policy in doc/ has.
func TestSSHAudit(t *testing.T) {
	t.Parallel()
	need.Programs(t, "apt-get", "dpkg-deb", "/usr/bin/python3")
	if out, err := exec.Command("../tools/ssh-audit", "-h").CombinedOutput(); err != nil {
		need.Lacking(t, "ssh-audit cannot be had: "+string(out))
	}
	for _, profile := range []string{"strict", "compatible"} {
		l := usualLab(t, "ssh_profile: "+profile+"\n") // its rate test counts
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
		warnings, err := audit(l.Address(1), "2222", "-l", "warn")
		if err != nil || profile == "strict" && strings.TrimSpace(warnings) != "" || strings.Contains(warnings, "[warn]") || strings.Contains(warnings, "[fail]") {
			t.Errorf("%s: %v\n%s", profile, err, warnings)
		}
		if out, err := audit(l.Address(1), "2222", "-P", "../doc/ssh-audit-policy.txt"); err != nil || !strings.Contains(out, "Passed") {
			t.Errorf("%s: %v\n%s", profile, err, out)
		}
	}
	// The policy can fail: a server with the library's defaults does.
	l := usualLab(t, "")
	bare := filepath.Join(t.TempDir(), "bare")
	if err := lab.Build("", bare, "./bench/bare"); err != nil {
		t.Fatal(err)
	}
	address := l.Address(1) + ":2222"
	process, err := lab.Start(l.Path("bare.log"), nil, bare, "-listen", address, "-host-key", l.Path("host_key"), "-client-key", l.Path("operator.pub"),
		"-ca-cert", l.Path("authority/active.crt"), "-ca-key", l.Path("authority/active.key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	if err := process.WaitForPort(address); err != nil {
		t.Fatal(err)
	}
	if out, err := audit(l.Address(1), "2222", "-P", "../doc/ssh-audit-policy.txt"); err == nil || !strings.Contains(out, "Failed") {
		t.Errorf("a server with the library's defaults: %v\n%s", err, out)
	}
}

// audit runs ssh-audit. It exits with 0 when it found nothing, or when the
// policy is kept, and with 1 when a connection was refused: what an audit opens at its end,
// to see how many it may, counts against the next one.
func audit(host, port string, args ...string) (out string, err error) {
	for range 5 {
		var text []byte
		text, err = exec.Command("../tools/ssh-audit", append([]string{"-n", "-p", port}, append(args, host)...)...).CombinedOutput()
		if out = string(text); lab.ExitCode(err) != 1 && !strings.Contains(out, "[exception]") {
			break
		}
		<-time.After(1500 * time.Millisecond) // until it may open as many as at first
	}
	return out, err
}
