package firstboot

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

// secret makes sure that nobody but its owner reads a private key on a host, and
// that none is in a log.
func (w *world) secret(t *testing.T, name string) {
	t.Helper()
	keys := strings.Fields(w.On(t, name, "sh", "-c",
		`grep -rlsE -e '-----BEGIN ([A-Z]+ )*PRIVATE KEY-----' /etc /var /root /run /tmp || true`))
	if len(keys) == 0 {
		t.Fatalf("%s has no private keys at all", name)
	}
	for _, path := range keys {
		if strings.HasPrefix(path, "/var/log/") {
			t.Errorf("%s: %s has a private key in it", name, path)
		}
		owner := "root"
		switch {
		case strings.HasPrefix(path, "/etc/etcd/"):
			owner = "etcd"
		case strings.HasPrefix(path, "/etc/signerd/"), strings.HasPrefix(path, "/var/lib/signerd/"):
			owner = "signerd"
		}
		if got := strings.TrimSpace(w.On(t, name, "stat", "-c", "%a %U", path)); got != "600 "+owner {
			t.Errorf("%s: %s is %s, want 600 %s", name, path, got, owner)
		}
	}
	if log := w.Bed.Logs(name); strings.Contains(log, "BEGIN PRIVATE KEY") || strings.Contains(log, "BEGIN OPENSSH PRIVATE KEY") {
		t.Errorf("%s: a private key is in the journal", name)
	}
}

// onlyAt makes sure that a member's private key is on no other host's disk.
func (w *world) onlyAt(t *testing.T, name, other string) {
	t.Helper()
	body := strings.Split(w.On(t, name, "cat", "/etc/etcd/pki/member.key"), "\n")[1]
	// Not by systemd, which would write it down itself.
	out, err := w.Bed.Enter(other, "sh", "-c", "grep -rlsF --exclude-dir=proc --exclude-dir=sys "+body+" / || true")
	if err != nil || out != "" {
		t.Errorf("the key of %s is on %s: %s %v", name, other, out, err)
	}
}

// capture writes down every packet that a host sends and receives, until stop,
// which gives them.
func (w *world) capture(t *testing.T, name string) (stop func() []byte) {
	t.Helper()
	// packet(7): all protocols. perl is on every host.
	const script = `socket(S, 17, 3, 768) or die "packet socket: $!"; $| = 1; print "ready\n";
		until (-e "/run/enough") { vec($r = "", fileno(S), 1) = 1; if (select($r, my $w, my $e, 0.1)) { recv(S, $p, 65536, 0); syswrite(STDOUT, $p) } }`
	cmd := w.Bed.Within(name, "perl", "-e", script)
	var packets, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &packets, &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fleet.Eventually(t, 10*time.Second, "the capture begins", func() error {
		out, err := w.Bed.Enter(name, "sh", "-c", "tail -n +2 /proc/net/packet | wc -l")
		if err == nil && strings.TrimSpace(out) == "0" {
			err = errors.New("no packet socket yet")
		}
		return err
	})
	return func() []byte {
		if _, err := w.Bed.Enter(name, "touch", "/run/enough"); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err, complaints.String())
		}
		return packets.Bytes()
	}
}

// unseen makes sure that a host's member key is not in what it sent, in PEM or as
// it is; what it says openly is.
func (w *world) unseen(t *testing.T, name string, packets []byte) {
	t.Helper()
	block, _ := pem.Decode([]byte(w.On(t, name, "cat", "/etc/etcd/pki/member.key")))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(packets, []byte("SSH-2.0-")) {
		t.Errorf("%s sent %d bytes, and no greeting of SSH is among them", name, len(packets))
	}
	for what, text := range map[string][]byte{"itself": secret, "in DER": block.Bytes, "in PEM": []byte(base64.StdEncoding.EncodeToString(block.Bytes))[:48]} {
		if bytes.Contains(packets, text) {
			t.Errorf("the key of %s is on the wire, %s", name, what)
		}
	}
}

// ctlHere gives etcdctl for this machine.
func ctlHere(t *testing.T) string {
	t.Helper()
	etcd, err := lab.BuildEtcd(lab.EtcdVersions[0])
	if err != nil {
		t.Fatal(err)
	}
	return etcd.Ctl
}

func ran(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
