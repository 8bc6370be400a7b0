package firstboot

import (
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/internal/need"
)

const releaseTags = "grpcnotrace"

// The packages of a release are the same bytes each time, have nothing in them
// that is for tests, and nothing that Debian's checks complain about.
func TestPackages(t *testing.T) {
	w := here(t)
	need.Programs(t, "lintian", "rpm")
	debs, err := w.Packages("1.1.0", releaseTags)
	if err != nil {
		t.Fatal(err)
	}
	dist := filepath.Dir(debs[0])
	first := sums(t, dist)
	if len(first) != 4 {
		t.Fatalf("the packages are %v", first)
	}
	if _, err := w.Packages("1.1.0", releaseTags); err != nil {
		t.Fatal(err)
	}
	for name, sum := range sums(t, dist) {
		if first[name] != sum {
			t.Errorf("%s is another one the second time", name)
		}
	}
	lintian := exec.Command("lintian", append([]string{"--fail-on=error,warning", "--allow-root"}, debs...)...)
	if out, err := lintian.CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	for _, name := range []string{"signerd", "signerd-first-boot"} {
		rpms, err := filepath.Glob(filepath.Join(dist, name+"-1.1.0-*.rpm"))
		if err != nil || len(rpms) != 1 {
			t.Fatalf("%v, %v", rpms, err)
		}
		out, err := exec.Command("rpm", "--query", "--list", "--scripts", "--package", rpms[0]).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "postinstall scriptlet") || !strings.Contains(string(out), "/usr/share/man/man8/") {
			t.Errorf("%s: %v\n%s", rpms[0], err, out)
		}
	}
	checkPages(t, w)
	for _, program := range []string{"signerd", "first-boot"} {
		path := w.Path("package/tools/" + program)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tags := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-tags" })
		if tags < 0 || info.Settings[tags].Value != releaseTags || strings.Contains(string(data), "SIGNERD_STOP") {
			t.Errorf("the release's %s has what is for tests: %v", program, info.Settings)
		}
	}
}

var paperForm = regexp.MustCompile(`/usr/share/doc/signerd/[a-z_./-]*[a-z]`)

// checkPages looks at the man pages: man can read them, and what they send the reader to
// is there.
func checkPages(t *testing.T, w *world) {
	t.Helper()
	pages, err := filepath.Glob(w.Path("package/*/usr/share/man/*/*.gz"))
	if err != nil || len(pages) != 8 {
		t.Fatalf("%v, %v", pages, err)
	}
	for _, page := range pages {
		// A page that man cannot read says so on stderr.
		if out, err := exec.Command("sh", "-c", "zcat "+page+" | groff -man -Tutf8 -ww 2>&1 >/dev/null").CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", page, err, out)
		}
	}
	sources, err := filepath.Glob(w.Path("package/tools/*.md"))
	if err != nil || len(sources) != len(pages) {
		t.Fatalf("%v, %v", sources, err)
	}
	// So does the program.
	code, err := exec.Command("git", "-C", "../..", "grep", "-ohE", "/usr/share/doc/signerd/[a-z_./-]*[a-z]", "--", "*.go", ":!*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, paper := range strings.Fields(string(code)) {
		if _, err := os.Stat(w.Path("package/signerd" + paper)); err != nil {
			t.Errorf("the program names it: %v", err)
		}
	}
	named := 0
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "](") {
			t.Errorf("%s: a link is left", path)
		}
		for _, paper := range paperForm.FindAllString(string(text), -1) {
			named++
			if _, err := os.Stat(w.Path("package/signerd" + paper)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if named == 0 {
		t.Error("no page names a paper")
	}
}

func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][32]byte{}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name()] = sha256.Sum256(data)
	}
	return all
}

var exposureForm = regexp.MustCompile(`Overall exposure level for signerd(?:-sync)?\.service: ([0-9.]+)`)

// A package is installed, upgraded while all runs, removed and purged, and loses
// nothing that is worth keeping.
func TestPackagesOnAHost(t *testing.T) {
	w := here(t)
	newer, err := w.Packages("1.1.0", releaseTags)
	if err != nil {
		t.Fatal(err)
	}
	w.Machine(t, "h1", 11, w.Signer)
	w.Machine(t, "h2", 12, w.Bare)

	// sync restarts etcd, and so is root, which costs 0.6.
	for service, most := range map[string]float64{"signerd.service": 1.5, "signerd-sync.service": 2.1} {
		match := exposureForm.FindStringSubmatch(w.On(t, "h1", "systemd-analyze", "security", "--no-pager", service))
		if match == nil {
			t.Fatalf("systemd-analyze does not say how exposed %s is", service)
		}
		if level, err := strconv.ParseFloat(match[1], 64); err != nil || level > most {
			t.Errorf("the exposure of %s is %s, want at most %.1f", service, match[1], most)
		}
	}
	w.On(t, "h1", "systemd-analyze", "verify", "--man=no", "signerd.service", "signerd-sync.service", "signerd-sync.timer", "etcd.service")

	// An upgrade: what runs goes on as the new version, settings stay, and what
	// has removed itself does not come back.
	w.On(t, "h1", "sh", "-c", "echo GOMEMLIMIT=100MiB > /etc/default/signerd")
	before := w.On(t, "h1", "systemctl", "show", "-p", "MainPID", "etcd", "signerd")
	if err := w.Install("h1", newer...); err != nil {
		t.Fatal(err)
	}
	after := w.On(t, "h1", "systemctl", "show", "-p", "MainPID", "etcd", "signerd")
	if pids, now := strings.Fields(before), strings.Fields(after); pids[0] != now[0] || pids[1] == now[1] {
		t.Errorf("etcd and signerd were %v and are %v: want the same etcd, and a new signerd", pids, now)
	}
	if out := w.On(t, "h1", "cat", "/etc/default/signerd"); out != "GOMEMLIMIT=100MiB\n" {
		t.Errorf("the settings are %q", out)
	}
	if out, err := w.Bed.Exec("h1", "ls", "/root/setup"); err == nil {
		t.Errorf("the upgrade brought the setup folder back: %s", out)
	}
	if out, err := w.SSH(t, "", "get-peers"); err != nil || out == "" {
		t.Errorf("get-peers after the upgrade: %q, %v", out, err)
	}
	if out := w.On(t, "h1", "sh", "-c", "signerd --version; bash -c '. /usr/share/bash-completion/completions/signerd' && echo completes"); !strings.Contains(out, "signerd version 1.1.0") || !strings.Contains(out, "completes") {
		t.Errorf("%s", out)
	}

	// A release's certificates live for a day and a month.
	_, dir := w.Client(t, "kubemaster-09")
	for path, life := range map[string]int{filepath.Join(dir, "client.crt"): 24 * 3600, "": 30 * 24 * 3600} {
		within := func(seconds int) error {
			if path == "" {
				_, err := w.Bed.Exec("h1", "openssl", "x509", "-in", "/etc/etcd/pki/member.crt", "-noout", "-checkend", strconv.Itoa(seconds))
				return err
			}
			return exec.Command("openssl", "x509", "-in", path, "-noout", "-checkend", strconv.Itoa(seconds)).Run()
		}
		if early, late := within(life-3600), within(life); early != nil || late == nil {
			t.Errorf("%q does not live for %d seconds", path, life)
		}
	}

	// Where it has not succeeded yet the folder is the new version's.
	if err := w.Install("h2", newer...); err != nil {
		t.Fatal(err)
	}
	w.On(t, "h2", "cmp", "/usr/lib/signerd-first-boot/first-boot", "/root/setup/first-boot")
	w.On(t, "h2", "sh", "-c", "echo mine > /root/setup/notes")
	out := w.On(t, "h2", w.Join(t)...)
	if !strings.Contains(out, "/root/setup stays") || w.On(t, "h2", "ls", "/root/setup") != "notes\n" {
		t.Errorf("what was not shipped is not left alone: %s", out)
	}

	// Certificates that an operator supplies are refused before etcd starts.
	w.On(t, "h2", "sh", "-c", "cp /etc/signerd/member.yaml /root/ && echo 'manage: false' >> /etc/signerd/member.yaml && cp /etc/etcd/pki/member.key /root/ && "+
		"openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /etc/etcd/pki/member.key && systemctl restart --no-block etcd")
	fleet.Eventually(t, time.Minute, "etcd's journal says why it does not start", func() error {
		if log := w.Bed.Logs("h2", "-u", "etcd"); !strings.Contains(log, "that an operator supplies (manage: false): the client port's") || !strings.Contains(log, "the certificate is for another key") {
			return errors.New(log[max(0, len(log)-500):])
		}
		return nil
	})
	w.On(t, "h2", "sh", "-c", "cat /root/member.key > /etc/etcd/pki/member.key && signerd check --supplied && cp /root/member.yaml /etc/signerd/")
	fleet.Eventually(t, time.Minute, "etcd has started by itself", func() error {
		_, err := w.Ctl("h2", "endpoint", "health")
		return err
	})

	// Removed and purged, the CA's key, the ledger and the settings of people stay.
	w.On(t, "h1", "dpkg", "--remove", "signerd-first-boot", "signerd")
	if out, err := w.Bed.Exec("h1", "systemctl", "is-active", "signerd"); err == nil {
		t.Errorf("after it was removed signerd is %s", out)
	}
	if out := w.On(t, "h1", "sh", "-c", "dpkg --purge signerd-first-boot signerd 2>&1"); !strings.Contains(out, "holds the CA's key") {
		t.Errorf("purge does not say that the key stays: %s", out)
	}
	w.On(t, "h1", "test", "-s", "/var/lib/signerd/authority/active.key")
	if _, err := w.Ctl("h1", "put", "without", "signerd"); err != nil {
		t.Errorf("etcd without signerd: %v", err)
	}
	if err := w.Install("h1", newer...); err != nil {
		t.Fatal(err)
	}
	w.On(t, "h1", "systemctl", "enable", "--now", "signerd")
	if out, err := w.SSH(t, "", "get-peers"); err != nil || strings.Count(out, "\n") != 2 {
		t.Errorf("get-peers after all: %q, %v", out, err)
	}
}

// The example for cloud-init joins a machine, once its dots are filled in.
func TestCloudInit(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Signer)
	w.Machine(t, "h2", 12, w.Bare)
	text, err := os.ReadFile("../../packaging/cloud-init.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var example struct {
		Packages   []string `yaml:"packages"`
		WriteFiles []struct {
			Path, Permissions, Content string
		} `yaml:"write_files"`
		RunCmd []any `yaml:"runcmd"`
	}
	if err := yaml.Load(text, &example, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	if len(example.WriteFiles) != 1 || example.WriteFiles[0].Path != "/root/.ssh/id_ed25519" || example.WriteFiles[0].Permissions != "0600" {
		t.Fatalf("%+v", example.WriteFiles) // the machines have that key already
	}
	ca := strings.Fields(w.On(t, "h1", "sh", "-c", "openssl x509 -in /etc/etcd/pki/ca.crt -outform DER | sha256sum"))[0]
	fill := strings.NewReplacer("10.0.0.11", w.Bed.Address(11), "SHA256:...", w.Fingerprint(t), "fingerprint=...", "fingerprint="+ca)
	// A join that fails keeps its key.
	if _, err := w.Bed.Exec("h2", "sh", "-c", strings.ReplaceAll(fill.Replace(example.RunCmd[0].(string)), ca, strings.Repeat("0", 64))); err == nil {
		t.Error("another CA is no error")
	}
	for _, command := range example.RunCmd {
		switch c := command.(type) {
		case string:
			w.On(t, "h2", "sh", "-c", fill.Replace(c))
		default:
			t.Fatalf("%v is no line", c)
		}
	}
	if voters, others := w.Members(t, "h1"); len(voters) != 2 || len(others) != 0 {
		t.Errorf("the members are %v and %v", voters, others)
	}
	if out, err := w.Bed.Exec("h2", "ls", "/root/.ssh/id_ed25519"); err == nil {
		t.Errorf("the join key stays: %s", out)
	}
}
