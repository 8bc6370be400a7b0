package firstboot

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/hosts"
	"github.com/signerd/signerd/integration/lab"
)

var blockForm = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

// The runbook is typed, block by block, on the machines that it names and with
// the addresses that it uses. Only what is different for everybody is filled in:
// fingerprints, and public keys.
func TestRunbook(t *testing.T) {
	w := here(t)
	text, err := os.ReadFile("../../doc/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	bed, err := hosts.On("sdrun", "10.0.0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &world{&fleet.World{Bed: bed, Dir: w.Dir, Debs: w.Debs, Bare: w.Bare}}
	for name, n := range map[string]int{"etcd-1": 11, "etcd-2": 12, "etcd-3": 13, "kubemaster-01": 21, "old-1": 41} {
		b.Machine(t, name, n, b.Bare)
		b.unprepare(t, name)
	}
	b.makeOld(t, "old-1")
	r := &reader{world: b, keys: map[string]string{}}
	blocks := blockForm.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 20 {
		t.Fatalf("the runbook has %d blocks", len(blocks))
	}
	for i, block := range blocks {
		host, ok := strings.CutPrefix(block[1], "sh ")
		if !ok {
			t.Fatalf("block %d is %q: every block says where it is typed", i+1, block[1])
		}
		if strings.Contains(block[2], "remove etcd-3") {
			b.On(t, "etcd-3", "sync")                      // it ran for long
			if err := bed.PowerOff("etcd-3"); err != nil { // and is dead
				t.Fatal(err)
			}
		}
		r.enter(t, host, block[2])
		if strings.Contains(block[2], "remove etcd-3") {
			go func() { _ = bed.Boot("etcd-3") }() // its etcd will never be ready again
			fleet.Eventually(t, time.Minute, "etcd-3 is up", func() error {
				_, err := bed.Exec("etcd-3", "true")
				return err
			})
		}
	}
	for _, host := range []string{"etcd-1", "etcd-2", "etcd-3"} {
		if voters, others := b.Members(t, host); len(voters) != 3 || len(others) != 0 {
			t.Errorf("at the end the members on %s are %v and %v", host, voters, others)
		}
	}
	if peers := b.On(t, "etcd-2", "ssh", "-i", "/mnt/operator", "signer@10.0.0.11", "get-peers"); !strings.Contains(peers, "https://10.0.0.32:2379\n") || strings.Contains(peers, "10.0.0.12") {
		t.Errorf("after etcd-2 moved get-peers is %s", peers)
	}
	// The others take its connections, which come from the new address.
	if log := b.Bed.Logs("etcd-1", "-u", "etcd", "--since", "-15s", "-g", "rejected connection"); strings.Contains(log, "10.0.0.12") || strings.Contains(log, "10.0.0.32") {
		t.Errorf("etcd-1 refuses etcd-2:\n%s", log)
	}
	if _, err := b.Bed.Exec("etcd-2", "sh", "-c", "ssh -i /mnt/image signer@10.0.0.11 kubemaster-02 < /etc/etcd/pki/member.crt"); err == nil {
		t.Error("the image's key was withdrawn, and is let in")
	}
	if out, err := b.Bed.Exec("old-1", "curl", "-sk", "--http1.1", "--cert", "/etc/etcd/pki/member.crt", "--key", "/etc/etcd/pki/member.key", "https://10.0.0.41:2380/version"); err != nil || !strings.Contains(out, "etcdserver") {
		t.Errorf("a member on the peer port of what was taken over: %v %s\n%s", err, out, b.Bed.Logs("old-1", "-u", "etcd", "-n", "3", "-g", "rejected"))
	}
}

// unprepare makes of a machine for the other tests one that the runbook begins
// with: without packages, with sshd, and root with no key to join by.
func (w *world) unprepare(t *testing.T, name string) {
	t.Helper()
	w.On(t, name, "sh", "-c", "dpkg --purge signerd-first-boot signerd 2>/dev/null; mv /root/.ssh/id_ed25519 /mnt/operator; systemctl -q enable --now ssh; sync")
	if name == "kubemaster-01" {
		w.On(t, name, "sh", "-c", "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
	} else {
		for _, deb := range w.Debs {
			if err := w.Bed.Push(name, deb, "/root/"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// reader is who types the runbook.
type reader struct {
	*world
	keys        map[string]string // public keys by their comment
	fingerprint string            // of the signer's host key
	ca          string            // fingerprint
}

var (
	publicKeyForm = regexp.MustCompile(`ssh-ed25519 AAAA\.\.\. (\S+?)'`)
	hostKeyForm   = regexp.MustCompile(`signer's host key\s+(SHA256:\S+)`)
	caForm        = regexp.MustCompile(`CA fingerprint\s+([0-9a-f]{64})`)
)

// enter runs a block on a host, in a shell that ends at the first failure.
func (r *reader) enter(t *testing.T, host, block string) {
	t.Helper()
	block = publicKeyForm.ReplaceAllStringFunc(block, func(match string) string {
		return r.public(t, publicKeyForm.FindStringSubmatch(match)[1]) + "'"
	})
	block = strings.NewReplacer("SHA256:...", r.fingerprint, "fingerprint=...", "fingerprint="+r.ca, "fingerprint ...", "fingerprint "+r.ca).Replace(block)
	if strings.Contains(block, "...") {
		t.Fatalf("something is not filled in: %s", block)
	}
	if strings.Contains(block, "signer@") { // the person has looked at the host key
		for _, address := range []string{"10.0.0.11", "10.0.0.12", "10.0.0.41"} {
			_, _ = r.Bed.Exec(host, "sh", "-c", "grep -qs '^"+address+" ' /root/.ssh/known_hosts || ssh-keyscan -t ed25519 "+address+" >> /root/.ssh/known_hosts")
		}
	}
	var out []byte
	for try := 0; ; try++ {
		cmd := r.Bed.Command(host, "sh", "-eu")
		cmd.Stdin = strings.NewReader("cd /root\n" + block)
		var err error
		if out, err = cmd.CombinedOutput(); err == nil {
			break
		}
		if lab.ExitCode(err) != 75 || try == 10 { // the runbook says to ask again then
			t.Fatalf("on %s:\n%s\n%v\n%s", host, block, err, out)
		}
		<-time.After(time.Second)
	}
	t.Logf("%s# %s\n%s", host, block, out)
	if match := hostKeyForm.FindSubmatch(out); match != nil {
		r.fingerprint = string(match[1])
	}
	if match := caForm.FindSubmatch(out); match != nil {
		r.ca = string(match[1])
	}
}

// public gives the public key that a line of the runbook is about.
func (r *reader) public(t *testing.T, comment string) string {
	t.Helper()
	if host, ok := strings.CutPrefix(comment, "root@"); ok {
		return strings.TrimSpace(r.On(t, host, "cat", "/root/.ssh/id_ed25519.pub"))
	}
	if comment == "operator" {
		return strings.TrimSpace(r.On(t, "old-1", "cat", "/root/.ssh/authorized_keys"))
	}
	path := r.Path("key-of-" + comment)
	if err := ran(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(key))
}

// makeOld makes a member with the CA of an older system: RSA, made by openssl,
// for everything the same names.
func (w *world) makeOld(t *testing.T, name string) {
	t.Helper()
	script := `
install -d /etc/etcd/pki && cd /etc/etcd/pki
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj '/CN=etcd-ca' 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout member.key -out member.csr -subj '/CN=etcd-old-1' 2>/dev/null
printf 'subjectAltName=IP:10.0.0.41,IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n' > ext
openssl x509 -req -in member.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile ext -out member.crt 2>/dev/null
install -d -o etcd -m 700 /var/lib/etcd && chown etcd member.key && chmod 600 ca.key member.key
cat > /etc/default/etcd <<END
ETCD_NAME=etcd-old-1
ETCD_DATA_DIR=/var/lib/etcd/default
ETCD_LISTEN_CLIENT_URLS=https://10.0.0.41:2379,https://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.41:2379
ETCD_LISTEN_PEER_URLS=https://10.0.0.41:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.41:2380
ETCD_INITIAL_CLUSTER=etcd-old-1=https://10.0.0.41:2380
ETCD_CERT_FILE=/etc/etcd/pki/member.crt
ETCD_KEY_FILE=/etc/etcd/pki/member.key
ETCD_TRUSTED_CA_FILE=/etc/etcd/pki/ca.crt
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_CERT_FILE=/etc/etcd/pki/member.crt
ETCD_PEER_KEY_FILE=/etc/etcd/pki/member.key
ETCD_PEER_TRUSTED_CA_FILE=/etc/etcd/pki/ca.crt
ETCD_PEER_CLIENT_CERT_AUTH=true
END
printf '[Service]\nType=notify\nUser=etcd\nEnvironmentFile=/etc/default/etcd\nExecStart=/usr/local/bin/etcd\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/etcd.service
systemctl daemon-reload && systemctl -q enable --now etcd
`
	cmd := w.Bed.Command(name, "sh", "-eu")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%w: %s", err, out))
	}
}
