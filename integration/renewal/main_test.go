// Package renewal tests on real hosts that nothing expires: certificates live for
// two minutes, and the timer of signerd sync runs every few seconds.
package renewal

import (
	"os"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
)

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

func TestMain(m *testing.M) {
	os.Exit(fleet.Main(m, "grpcnotrace crashpoints impatient shortlives"))
}

// world is what all tests share.
type world struct{ *fleet.World }

// cluster boots h1, which signs, h2 and h3, all members.
func cluster(t *testing.T) *world {
	t.Helper()
	w := &world{fleet.Here(t)}
	w.Machine(t, "h1", 11, w.Signer)
	w.often(t, "h1")
	fleet.Eventually(t, time.Minute, "h1, whose certificate may have expired on its disk, has a new one", func() error {
		_, err := w.SSH(t, "", "get-topology")
		return err
	})
	for n, name := range map[int]string{12: "h2", 13: "h3"} {
		w.Machine(t, name, n, w.Bare)
	}
	for _, name := range []string{"h2", "h3"} {
		w.On(t, name, w.Join(t)...)
		w.often(t, name)
	}
	return w
}

// often lets signerd sync run every few seconds.
func (w *world) often(t *testing.T, name string) {
	t.Helper()
	w.On(t, name, "sh", "-c", "install -d /etc/systemd/system/signerd-sync.timer.d && "+
		"printf '[Timer]\\nOnUnitInactiveSec=\\nOnBootSec=1s\\nOnUnitInactiveSec=3s\\nRandomizedDelaySec=1s\\n' > /etc/systemd/system/signerd-sync.timer.d/often.conf && "+
		"install -d /etc/systemd/system/signerd-sync.service.d && "+
		"printf '[Service]\\nRestartSec=2s\\n' > /etc/systemd/system/signerd-sync.service.d/often.conf && "+
		"systemctl daemon-reload && systemctl restart signerd-sync.timer && sync")
}
