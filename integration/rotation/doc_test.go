package rotation

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

var blockForm = regexp.MustCompile("(?ms)^```sh ([^\n]*)\n(.*?)^```$")

// The page is typed block by block, on hosts with other names and addresses. What ends
// with status 75 is typed again.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../doc/rotation.md")
	if err != nil {
		t.Fatal(err)
	}
	w := cluster(t)
	w.On(t, "h2", "sh", "-c", "cp -p /root/.ssh/id_ed25519 /mnt/operator; ssh-keygen -F "+w.Bed.Address(11)+" -f /etc/signerd/known_hosts | grep -v '^#' > /root/.ssh/known_hosts")
	w.NewClient(t, "kubemaster-01")
	blocks := blockForm.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 9 {
		t.Fatalf("the page has %d blocks", len(blocks))
	}
	for _, block := range blocks {
		host := "h" + strings.TrimPrefix(block[1], "etcd-")
		script := strings.ReplaceAll(block[2], "10.0.0.", w.Bed.Network+".")
		var out string
		fleet.Eventually(t, 3*time.Minute, script, func() (err error) {
			out, err = w.Bed.Exec(host, "sh", "-euc", "cd /root\n"+script)
			if err != nil && lab.ExitCode(err) != 75 {
				t.Fatalf("%s: %v", script, err)
			}
			return err
		})
		t.Logf("on %s\n%s\n%s", block[1], script, out)
	}
	w.Well(t, time.Minute)
}
