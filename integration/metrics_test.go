package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/need"
)

// What happened is counted, what expires is told, and promtool finds nothing wrong
// with it.
func TestMetrics(t *testing.T) {
	need.Programs(t, "promtool")
	address := freeAddress(t)
	l := newCluster(t, "  health_checks: [127.0.0.9/32]\nmetrics: "+address+"\n")
	newClient(t, l, "kubemaster-07")
	another, err := l.NewRequest("another")
	if err != nil {
		t.Fatal(err)
	}
	refused(t, l, 77, "held by another key", another, "kubemaster-07")
	refused(t, l, 3, "bad request", "hello", "kubemaster-08")
	refused(t, l, 64, "", "", "get-money")
	if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "stranger"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.SSHWith("", "-i", l.Path("stranger"), "signer@keyless", "get-peers"); err == nil {
		t.Error("a stranger was let in")
	}
	// A health check connects and goes away.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
	conn, err := dialer.Dial("tcp", l.Address(1)+":2222")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}

	var text string
	for name, is := range map[string]func(float64) bool{
		`signerd_commands_total{command="client",status="0"}`:  exactly(1),
		`signerd_commands_total{command="client",status="77"}`: exactly(1),
		`signerd_commands_total{command="client",status="3"}`:  exactly(1),
		`signerd_commands_total{command="none",status="64"}`:   exactly(1),
		`signerd_refusals_total{reason="name_held"}`:           exactly(1),
		`signerd_refusals_total{reason="bad_request"}`:         exactly(1),
		`signerd_refusals_total{reason="bad_command"}`:         exactly(1),
		`signerd_refusals_total{reason="internal"}`:            exactly(0),
		`signerd_connections_total{outcome="denied"}`:          exactly(1),
		`signerd_connections_total{outcome="health_check"}`:    exactly(1),
		`signerd_connections_total{outcome="login"}`:           func(v float64) bool { return v >= 4 },
		`signerd_ledger_commit_seconds_count`:                  func(v float64) bool { return v >= 2 },
		`signerd_ca_expiry_seconds`:                            near(10 * 365 * 24 * time.Hour),
		`signerd_member_expiry_seconds`:                        near(30 * 24 * time.Hour),
		`signerd_served_expiry_seconds`:                        near(30 * 24 * time.Hour),
		`signerd_client_expiry_seconds`:                        near(24 * time.Hour),
		`signerd_missed_renewals`:                              exactly(0),
		`signerd_etcd_up`:                                      exactly(1),
		`signerd_build_info{version="devel"}`:                  exactly(1),
	} {
		eventually(t, 90*time.Second, name, func() bool {
			text = scrape(t, address)
			value, ok := sample(text, name)
			return ok && is(value)
		})
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	if strings.Contains(text, "kubemaster") {
		t.Error("a client's name is in the metrics")
	}
	// What checks health is in no log.
	if log := read(t, l.Path("signerd.log")); strings.Contains(log, "127.0.0.9") {
		t.Errorf("the health check is in the log:\n%s", log)
	}
}

// The alert rules fire when they should, and not when all is well.
func TestAlertRules(t *testing.T) {
	need.Programs(t, "promtool")
	cmd := exec.Command("promtool", "test", "rules", "signerd.rules.test.yml")
	cmd.Dir = "../packaging/prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// Each metric that a rule is about is one that there is.
	page := read(t, "../doc/signerd.8.md")
	for _, name := range regexp.MustCompile(`signerd_[a-z_]+`).FindAllString(read(t, "../packaging/prometheus/signerd.rules.yml"), -1) {
		if name = strings.TrimSuffix(name, "_bucket"); !strings.Contains(page, "`"+name) {
			t.Errorf("%s is not on the page", name)
		}
	}
}

func exactly(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

// near is true from a little less than a time to the whole.
func near(d time.Duration) func(float64) bool {
	return func(v float64) bool { return v > d.Seconds()*0.99 && v < d.Seconds()*1.01 }
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

func scrape(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(fmt.Sprintf("http://%s/metrics", address))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sample(text, name string) (float64, bool) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return v, err == nil
		}
	}
	return 0, false
}
