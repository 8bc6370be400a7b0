package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/load"
)

// Names are the hosts of a Cluster, all members; h1 signs.
var Names = []string{"h1", "h2", "h3"}

// Cluster boots a cluster of short lives, in which signerd sync runs every few
// seconds.
func (w *World) Cluster(t *testing.T) {
	t.Helper()
	w.Machine(t, "h1", 11, w.Signer)
	w.Often(t, "h1")
	Eventually(t, time.Minute, "h1, whose certificate may have expired on its disk, has a new one", func() error {
		_, err := w.SSH(t, "", "get-topology")
		return err
	})
	for n, name := range map[int]string{12: "h2", 13: "h3"} {
		w.Machine(t, name, n, w.Bare)
	}
	for _, name := range []string{"h2", "h3"} {
		w.On(t, name, w.Join(t)...)
		w.Often(t, name)
	}
}

// Often lets signerd sync run every few seconds.
func (w *World) Often(t *testing.T, name string) {
	t.Helper()
	w.On(t, name, "sh", "-c", "install -d /etc/systemd/system/signerd-sync.timer.d && "+
		"printf '[Timer]\\nOnUnitInactiveSec=\\nOnBootSec=1s\\nOnUnitInactiveSec=3s\\nRandomizedDelaySec=1s\\n' > /etc/systemd/system/signerd-sync.timer.d/often.conf && "+
		"install -d /etc/systemd/system/signerd-sync.service.d && "+
		"printf '[Service]\\nRestartSec=2s\\n' > /etc/systemd/system/signerd-sync.service.d/often.conf && "+
		"systemctl daemon-reload && systemctl restart signerd-sync.timer && sync")
}

// Ports gives a port of each member.
func (w *World) Ports(port string) []string {
	var all []string
	for n := 11; n <= 13; n++ {
		all = append(all, w.Bed.Address(n)+":"+port)
	}
	return all
}

// Endpoints gives the client URL of each member.
func (w *World) Endpoints() []string {
	var all []string
	for _, address := range w.Ports("2379") {
		all = append(all, "https://"+address)
	}
	return all
}

// Write writes to all members.
func (w *World) Write(t *testing.T, c *Client, perSecond int) *load.Load {
	t.Helper()
	writes, err := load.Start(w.Endpoints(), c.Config(t), perSecond)
	if err != nil {
		t.Fatal(err)
	}
	return writes
}

// Well waits until all members vote, answer, and have a certificate with a life
// before it.
func (w *World) Well(t *testing.T, atMost time.Duration) {
	t.Helper()
	for _, name := range Names {
		Eventually(t, atMost, name+" is well", func() error {
			if _, err := w.Bed.Exec(name, "openssl", "x509", "-in", "/etc/etcd/pki/member.crt", "-noout", "-checkend", "40"); err != nil {
				return errors.New("its certificate is old")
			}
			out, err := w.Ctl(name, "endpoint", "health", "--cluster")
			if err == nil && strings.Count(out, "is healthy") != 3 {
				err = errors.New(out)
			}
			return err
		})
	}
}

// Said gives the lines of a host's journal by a unit since some time that have a
// text in them, each after the seconds since 1970.
func (w *World) Said(name, unit string, since time.Time, text string) []string {
	var lines []string
	for line := range strings.Lines(w.Bed.Logs(name, "-u", unit, "-o", "short-unix", fmt.Sprintf("--since=@%d", since.Unix()))) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}
