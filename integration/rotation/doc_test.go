package rotation

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

var blockForm = regexp.MustCompile("(?ms)^```sh ([^\n]*)\n(.*?)^```$")

// The pages are typed block by block, on hosts with other names and addresses. What ends
// with status 75 is typed again.
func TestPages(t *testing.T) {
	w := cluster(t)
	for _, host := range fleet.Names {
		w.On(t, host, "sh", "-c", "cp -p /root/.ssh/id_ed25519 /mnt/operator; ssh-keygen -F "+w.Bed.Address(11)+" -f /etc/signerd/known_hosts | grep -v '^#' > /root/.ssh/known_hosts")
	}
	w.examples(t, "h2")
	w.NewClient(t, "kubemaster-01")
	t.Run("rotation", func(t *testing.T) { w.typePage(t, "rotation.md", 9) })
	if t.Failed() {
		return
	}
	w.Well(t, time.Minute)
	t.Run("restore", func(t *testing.T) { w.typePage(t, "restore.md", 5) })
	w.newSigner(t)
}

// examples puts the package's examples onto a host: the hosts' base leaves documentation
// out.
func (w *world) examples(t *testing.T, host string) {
	t.Helper()
	const dir = "/usr/share/doc/signerd/examples/"
	w.On(t, host, "mkdir", "-p", dir)
	for _, name := range []string{"signerd-rotate.service", "signerd-rotate.timer"} {
		if err := w.Bed.Push(host, "../../packaging/examples/"+name, dir+name); err != nil {
			t.Fatal(err)
		}
	}
}

// typePage types a page, which has so many blocks at least.
func (w *world) typePage(t *testing.T, page string, least int) {
	t.Helper()
	text, err := os.ReadFile("../../doc/" + page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := blockForm.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < least {
		t.Fatalf("the page has %d blocks", len(blocks))
	}
	network := strings.NewReplacer("10.0.0.", w.Bed.Network+".", `10\.0\.0\.`, strings.ReplaceAll(w.Bed.Network, ".", `\.`)+`\.`, "remove etcd-", "remove etcd-h")
	for _, block := range blocks {
		host, script := "h"+strings.TrimPrefix(block[1], "etcd-"), network.Replace(block[2])
		if strings.Contains(script, "ca restore") {
			w.loseSigner(t)
		}
		began := time.Now()
		var out string
		fleet.Eventually(t, 3*time.Minute, script, func() (err error) {
			out, err = w.Bed.Exec(host, "sh", "-euc", "cd /root\n"+script)
			if err != nil && lab.ExitCode(err) != 75 {
				t.Fatalf("%s: %v", script, err)
			}
			return err
		})
		t.Logf("on %s, %s\n%s\n%s", block[1], time.Since(began).Round(time.Second/10), script, out)
	}
}

// loseSigner copies the backup to another machine, as a person has, and ends the
// signer's for good.
func (w *world) loseSigner(t *testing.T) {
	t.Helper()
	backup := w.Path("signerd.age")
	if err := os.WriteFile(backup, []byte(w.On(t, "h1", "cat", "/root/signerd.age")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Bed.Push("h2", backup, "/root/signerd.age"); err != nil {
		t.Fatal(err)
	}
	if err := w.Bed.PowerOff("h1"); err != nil {
		t.Fatal(err)
	}
}

// newSigner makes sure that h2 signs for everybody, and that the machine that was lost
// does not when it is found again.
func (w *world) newSigner(t *testing.T) {
	t.Helper()
	for _, name := range []string{"h2", "h3"} {
		fleet.Eventually(t, time.Minute, name+" is renewed by the new signer", func() error {
			_, err := w.Bed.Exec(name, "openssl", "x509", "-in", "/etc/etcd/pki/member.crt", "-noout", "-checkend", "70")
			return err
		})
	}
	if voters, others := w.Members(t, "h2"); len(voters) != 2 || len(others) != 0 {
		t.Errorf("the members are %v and %v", voters, others)
	}
	began := time.Now()
	go func() { _ = w.Bed.Boot("h1") }() // its etcd was removed, and is never ready
	fleet.Eventually(t, 2*time.Minute, "the old signer says that it is none", func() error {
		if lines := w.Said("h1", "signerd", began, "another signer took over"); len(lines) == 0 {
			return fmt.Errorf("it says %s", w.Said("h1", "signerd", began, ""))
		}
		return nil
	})
	fleet.Eventually(t, 20*time.Second, "the old signer has ended", func() error {
		_, err := w.Bed.Exec("h1", "sh", "-c", "! systemctl is-active -q signerd")
		return err
	})
}
