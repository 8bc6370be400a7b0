package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/internal/need"
)

// node is a control-plane node that renews by signer-renew.
type node struct {
	lab     *lab.Lab
	dir     string
	shell   []string
	env     []string
	signers []string // none: the lab's
}

const nodeName = "kubemaster-07"

// shells are those that nodes have.
var shells = map[string][]string{"dash": {"dash"}, "busybox": {"busybox", "sh"}, "bash": {"bash", "--posix"}}

// newNode is a node with an SSH key that is bound to its name.
func newNode(t *testing.T, l *lab.Lab, shell ...string) *node {
	t.Helper()
	n := &node{lab: l, dir: t.TempDir(), shell: shell}
	if _, err := os.Stat(l.Path("node")); err != nil {
		if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "node", "-f", "node"); err != nil {
			t.Fatal(err)
		}
		if err := l.Authorize(`permit="get-*,kubemaster-07"`, "node"); err != nil {
			t.Fatal(err)
		}
		if err := l.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// renew runs signer-renew and gives its exit status and what it says.
func (n *node) renew(t *testing.T, args ...string) (status int, says string) {
	t.Helper()
	out, err := n.command(append([]string{"-t", "1"}, args...)...).CombinedOutput()
	if err != nil && lab.ExitCode(err) == 0 {
		t.Fatal(err)
	}
	return lab.ExitCode(err), string(out)
}

func (n *node) command(args ...string) *exec.Cmd {
	script, err := filepath.Abs("../packaging/signer-renew")
	if err != nil {
		panic(err)
	}
	argv := append(slices.Clone(n.shell), script, "-d", n.dir, "-n", nodeName, "-i", n.lab.Path("node"), "-k", n.lab.Path("known_hosts"))
	argv = append(argv, args...)
	if argv = append(argv, n.signers...); n.signers == nil {
		argv = append(argv, n.lab.Address(1)+":2222")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), n.env...)
	return cmd
}

// works makes sure that the node has a certificate that works, and gives its
// serial.
func (n *node) works(t *testing.T) string {
	t.Helper()
	out, err := n.lab.Run("", "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", n.dir+"/ca.crt", n.dir+"/client.crt")
	if err != nil {
		t.Fatalf("the certificate does not verify: %s %v", out, err)
	}
	public, err := n.lab.Run("", "openssl", "pkey", "-in", n.dir+"/client.key", "-pubout")
	if err != nil {
		t.Fatal(err)
	}
	shown, err := n.lab.Run("", "openssl", "x509", "-in", n.dir+"/client.crt", "-noout", "-pubkey")
	if err != nil || shown != public {
		t.Fatalf("the certificate is for another key: %v", err)
	}
	serial, err := n.lab.Run("", "openssl", "x509", "-in", n.dir+"/client.crt", "-noout", "-serial")
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// files are all that the node has, by name; what holds a lock is left out.
func (n *node) files(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		if e.Name() != ".signer-renew.lock" {
			all[e.Name()] = read(t, filepath.Join(n.dir, e.Name()))
		}
	}
	return all
}

// always asks for a certificate, however long the present one lives.
const always = "90000"

// Every option and every exit status is on its page.
func TestSignerRenewPage(t *testing.T) {
	script, page := read(t, "../packaging/signer-renew"), read(t, "../doc/signer-renew.8.md")
	options := regexp.MustCompile(`(?m)^while getopts ([a-z:]+) `).FindStringSubmatch(script)
	if options == nil {
		t.Fatal("the script has no options")
	}
	for _, option := range strings.ReplaceAll(options[1], ":", "") {
		if !strings.Contains(page, fmt.Sprintf("\n| `-%c` |", option)) || !strings.Contains(script, fmt.Sprintf("\n  -%c ", option)) {
			t.Errorf("-%c is not on the page, or not in the usage", option)
		}
	}
	for _, status := range regexp.MustCompile(`(?:exit|die|return|code=)\s?(\d+)`).FindAllStringSubmatch(script, -1) {
		if status[1] != "255" && // ssh's, and 69 in the end
			!strings.Contains(page, "\n| "+status[1]+" |") {
			t.Errorf("status %s is not on the page", status[1])
		}
	}
}

// What every node does, in each shell.
func TestSignerRenew(t *testing.T) {
	l, _ := newSigner(t)
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			need.Programs(t, shell[0], "flock")
			n := newNode(t, l, shell...)
			must := func(args ...string) {
				t.Helper()
				if status, says := n.renew(t, args...); status != 0 || says != "" {
					t.Fatalf("%v: status %d: %s", args, status, says)
				}
			}
			must()
			first, key := n.works(t), read(t, n.dir+"/client.key")
			if info, err := os.Stat(n.dir + "/client.key"); err != nil || info.Mode() != 0o600 {
				t.Errorf("the key is %v, %v", info.Mode(), err)
			}
			must()
			if n.works(t) != first {
				t.Error("a fresh certificate was renewed")
			}
			must("-r", always)
			second := n.works(t)
			if second == first || read(t, n.dir+"/client.key") != key {
				t.Error("the certificate was not renewed, or its key was")
			}
			if files := n.files(t); len(files) != 3 {
				t.Errorf("there are other files: %v", files)
			}
			// The hook runs for something new, and until it has succeeded.
			if status, says := n.renew(t, "-r", always, "-x", "false"); status != 75 || !strings.Contains(says, "the hook failed") {
				t.Errorf("a hook that fails: %d %s", status, says)
			}
			must("-x", "touch "+n.dir+"/hooked")
			if _, err := os.Stat(n.dir + "/hooked"); err != nil {
				t.Error("the hook was not run again")
			}
			must("-x", "false") // nothing is new
		})
	}
}

// The image's key may be withdrawn once a node has a certificate: it renews by
// that one's own key, which is then the only one it offers first.
func TestSignerRenewByItsOwnKey(t *testing.T) {
	l, _ := newSigner(t)
	n := newNode(t, l, "dash")
	if status, says := n.renew(t, "-o"); status != 0 {
		t.Fatalf("by the image's key: %d %s", status, says)
	}
	first := n.works(t)
	write(t, l.Path("authorized_keys"), "")
	if err := l.Authorize(`permit="get-*"`, "operator"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(); err != nil {
		t.Fatal(err)
	}
	if status, says := n.renew(t, "-r", always); status != 69 || !strings.Contains(says, "Permission denied") {
		t.Errorf("by the image's key, which was withdrawn: %d %s", status, says)
	}
	if status, says := n.renew(t, "-r", always, "-o"); status != 0 || n.works(t) == first {
		t.Errorf("by its own key: %d %s", status, says)
	}
}

// Whatever comes instead of a certificate, what worked before stays, the status
// tells, and the next run heals.
func TestSignerRenewKeepsWhatWorks(t *testing.T) {
	l, _ := newSigner(t)
	stock, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	faulty, err := filepath.Abs("testdata/faulty-ssh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(faulty, bin+"/ssh"); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, l, "dash")
	broken := func(fault string) {
		n.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "SSH=" + stock, "FAULT=" + fault, "OTHER=" + bin + "/other"}
	}
	if status, says := n.renew(t); status != 0 {
		t.Fatalf("%d %s", status, says)
	}
	serial, before := n.works(t), n.files(t)
	ours, foreign := newIssuer(t, l.Path("authority/active.crt"), l.Path("authority/active.key")), newIssuer(t, "", "")
	other, err := l.NewRequest("other")
	if err != nil {
		t.Fatal(err)
	}
	anotherName, err := l.SSH(read(t, n.csr(t)), "kubemaster-08")
	if err != nil {
		t.Fatal(err)
	}
	anotherKey, err := l.SSH(other, "kubemaster-09")
	if err != nil {
		t.Fatal(err)
	}
	day := time.Now().Add(24 * time.Hour)
	for _, test := range []struct {
		fault, other string
		status       int
		says         string
	}{
		{"crt-garbage", "", 76, "not one certificate"},
		{"crt-nothing", "", 76, "not one certificate"},
		{"crt-half", "", 76, "is cut"},
		{"crt-cut", "", 69, ""},
		{"crt-twice", "", 76, "not one certificate"},
		{"crt-other", anotherName, 76, "another name than kubemaster-07"},
		{"crt-other", anotherKey, 76, "another key"},
		{"crt-other", foreign.issue(t, n, nodeName, day), 76, "does not verify"},
		{"crt-other", ours.issue(t, n, nodeName, time.Now().Add(-time.Minute)), 76, "the clock says"},
		{"crt-other", ours.issue(t, n, nodeName, time.Now().Add(30*time.Second)), 76, "expires within a minute"},
		{"crt-retry", "", 75, "not now"},
		{"crt-denied", "", 77, "held by another key"},
		{"ca-garbage", "", 76, "no CA that is whole"},
		{"ca-nothing", "", 76, "no CA that is whole"},
		{"ca-half", "", 76, "no CA that is whole"},
		{"ca-cut", "", 69, ""},
		{"ca-other", foreign.pem(), 76, "other CAs than the ones"},
		{"ca-retry", "", 75, "not now"},
	} {
		t.Run(test.fault+" "+test.says, func(t *testing.T) {
			write(t, bin+"/other", test.other)
			broken(test.fault)
			status, says := n.renew(t, "-r", always)
			if status != test.status || !strings.Contains(says, test.says) {
				t.Errorf("status %d, want %d and %q: %s", status, test.status, test.says, says)
			}
			if now := n.files(t); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Errorf("the files changed: %d, and were %d", len(now), len(before))
			}
			n.env = nil
			if status, says := n.renew(t, "-r", always); status != 0 || n.works(t) == serial {
				t.Errorf("the next run: %d %s", status, says)
			}
			serial, before = n.works(t), n.files(t)
		})
	}
	// A bundle that grows or shrinks is a rotation, and is taken, whatever becomes of
	// the certificate.
	grown := read(t, n.dir+"/ca.crt") + foreign.pem()
	write(t, bin+"/other", grown)
	broken("ca-other")
	if status, says := n.renew(t); status != 0 || read(t, n.dir+"/ca.crt") != grown {
		t.Errorf("a bundle of two: %d %s", status, says)
	}
	n.env = nil
	if status, says := n.renew(t); status != 0 || read(t, n.dir+"/ca.crt") == grown {
		t.Errorf("a bundle of one again: %d %s", status, says)
	}
	serial = n.works(t)
	broken("ca-other crt-denied")
	if status, says := n.renew(t, "-r", always); status != 77 || read(t, n.dir+"/ca.crt") != grown || n.works(t) != serial {
		t.Errorf("a bundle of two, and no certificate: %d %s", status, says)
	}
	n.env = nil

	// What is trusted now is no less so for a line too many.
	bundle := read(t, n.dir+"/ca.crt")
	write(t, n.dir+"/ca.crt", bundle+"-----BEGIN CERTIFICATE-----\n")
	write(t, bin+"/other", newIssuer(t, "", "").pem())
	broken("ca-other")
	if status, says := n.renew(t); status != 76 || !strings.Contains(says, "other CAs than the ones") {
		t.Errorf("a stranger's CA in the place of one with a line too many: %d %s", status, says)
	}
	write(t, n.dir+"/ca.crt", bundle)
	n.env = nil

	// Of several signers the first that serves is enough, and what tells most is the
	// exit status; whoever is off tells least.
	off, on := l.Address(9)+":2222", l.Address(1)+":2222"
	for _, test := range []struct {
		signers []string
		fault   string
		status  int
	}{
		{[]string{off, on}, "", 0}, {[]string{on, off}, "", 0}, {[]string{"[" + l.Address(9) + "]", off}, "", 69},
		{[]string{on, off}, "crt-denied", 77}, {[]string{off, on}, "crt-denied", 77}, {[]string{on, off}, "crt-retry", 75},
		{[]string{"[::1]:9", "localhost:9", "::1"}, "", 69},
	} {
		broken(test.fault)
		n.signers = test.signers
		if status, says := n.renew(t, "-r", always, "-j", "1"); status != test.status {
			t.Errorf("%v %s: status %d, want %d: %s", test.signers, test.fault, status, test.status, says)
		}
	}
}

// Without a pinned host key, without an SSH key, on a full disk, beside another run,
// or with half a key nothing is asked or changed.
func TestSignerRenewRefuses(t *testing.T) {
	l, _ := newSigner(t)
	n := newNode(t, l, "dash")
	check := func(status int, says string, args ...string) {
		t.Helper()
		if got, text := n.renew(t, args...); got != status || !strings.Contains(text, says) {
			t.Errorf("%v: status %d, want %d and %q: %s", args, got, status, says, text)
		}
	}
	write(t, n.dir+"/known", "")
	check(69, "Host key verification failed", "-k", n.dir+"/known")
	check(66, "ssh-keyscan", "-k", n.dir+"/nothing")
	check(66, "no SSH key", "-i", n.dir+"/nothing")
	check(66, "certificate and its key live there", "-d", n.dir+"/nothing")
	check(64, "not a number", "-r", "1h")
	check(64, "usage", "-z")
	check(77, "denied", "-n", "kubemaster-08")
	if _, err := os.Stat(n.dir + "/client.crt"); err == nil {
		t.Error("a certificate came of it")
	}
	if status, says := n.renew(t); status != 0 {
		t.Fatalf("%d %s", status, says)
	}
	key := read(t, n.dir+"/client.key")
	write(t, n.dir+"/client.key", key[:60])
	check(78, "not a private key")
	write(t, n.dir+"/client.key", key)
	lock := exec.Command("flock", n.dir+"/.signer-renew.lock", "cat")
	stdin, err := lock.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the lock is taken", func() bool { status, _ := n.renew(t); return status == 75 })
	check(75, "another signer-renew")
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	_ = lock.Wait() // its input ended
	check(0, "")
}

// A disk that is full costs nothing but time.
func TestSignerRenewOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		need.Lacking(t, "a small disk needs root")
	}
	l, _ := newSigner(t)
	n := newNode(t, l, "busybox", "sh")
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", n.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", n.dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	// At the first run not even a key can be made.
	if err := os.WriteFile(n.dir+"/ballast", make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk takes a megabyte")
	}
	if status, says := n.renew(t); status != 74 || !strings.Contains(says, "client.key: is the disk full?") {
		t.Errorf("a key on a full disk: %d %s", status, says)
	}
	if err := os.Remove(n.dir + "/ballast"); err != nil {
		t.Fatal(err)
	}
	if status, says := n.renew(t); status != 0 {
		t.Fatalf("%d %s", status, says)
	}
	serial := n.works(t)
	if err := os.WriteFile(n.dir+"/ballast", make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk takes a megabyte")
	}
	ledger, err := l.Run("", l.Binary, "ledger", "show", "--config", l.Path("signerd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if status, says := n.renew(t, "-r", always); status != 74 || !strings.Contains(says, "is full") || n.works(t) != serial {
		t.Errorf("on a full disk: %d %s", status, says)
	}
	if now, err := l.Run("", l.Binary, "ledger", "show", "--config", l.Path("signerd.yaml")); err != nil || now != ledger {
		t.Errorf("a certificate was wasted: %v", err)
	}
	if err := os.Remove(n.dir + "/ballast"); err != nil {
		t.Fatal(err)
	}
	if status, says := n.renew(t, "-r", always); status != 0 || n.works(t) == serial {
		t.Errorf("with room again: %d %s", status, says)
	}
}

// Killed at each of its lines, the first time and when it renews, it leaves what
// worked, and the next run finishes.
func TestSignerRenewKilled(t *testing.T) {
	l, _ := newSigner(t)
	hit, err := filepath.Abs("testdata/kill-here")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dash", "busybox"} {
		for _, fresh := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, fresh %v", name, fresh), func(t *testing.T) {
				every := 1
				if !long {
					every = 9
				}
				killed := 0
				for at := 1 + os.Getpid()%every; ; at += every {
					n := newNode(t, l, slices.Insert(slices.Clone(shells[name]), len(shells[name]), "-x")...)
					if !fresh {
						if status, says := (&node{lab: l, dir: n.dir, shell: shells[name]}).renew(t); status != 0 {
							t.Fatalf("%d %s", status, says)
						}
					}
					before := n.files(t)
					counter := filepath.Join(t.TempDir(), "kill")
					write(t, counter+".count", "0")
					n.env = []string{"PS4=$(" + hit + " $$)", "KILL=" + counter, "KILL_AT=" + strconv.Itoa(at)}
					cmd := n.command("-r", always, "-t", "1")
					err := cmd.Run()
					if err == nil {
						break // it came to its end
					}
					if cmd.ProcessState.ExitCode() != -1 {
						t.Fatalf("line %d: %v", at, err)
					}
					killed++
					n.shell, n.env = shells[name], nil
					if !fresh {
						n.works(t)
					}
					if key, had := before["client.key"]; had && read(t, n.dir+"/client.key") != key {
						t.Fatalf("line %d: the key is another one", at)
					}
					var status int
					var says string
					eventually(t, 10*time.Second, "what it had started is gone, and with it the lock", func() bool {
						status, says = n.renew(t, "-r", always)
						return status != 75
					})
					if status != 0 {
						t.Fatalf("line %d: the next run: %d %s", at, status, says)
					}
					n.works(t)
					if files := n.files(t); len(files) != 3 {
						t.Fatalf("line %d: files are left: %d", at, len(files))
					}
				}
				if t.Logf("killed %d times", killed); killed*every < 40 {
					t.Errorf("it was killed %d times only", killed)
				}
			})
		}
	}
}

// csr makes a request for the node's key.
func (n *node) csr(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "csr")
	if _, err := n.lab.Run("", "openssl", "req", "-new", "-key", n.dir+"/client.key", "-subj", "/CN=x", "-out", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// issuer is a CA that signs what a signer never would.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newIssuer takes a CA's files, or makes another CA that bears the lab's name.
func newIssuer(t *testing.T, certFile, keyFile string) *issuer {
	t.Helper()
	if certFile != "" {
		certificate, _ := pem.Decode([]byte(read(t, certFile)))
		block, _ := pem.Decode([]byte(read(t, keyFile)))
		parsed, err := x509.ParseCertificate(certificate.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return &issuer{parsed, key.(*ecdsa.PrivateKey)}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "another"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{parsed, key}
}

func (i *issuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.certificate.Raw}))
}

// issue signs a certificate for a node's key.
func (i *issuer) issue(t *testing.T, n *node, name string, until time.Time) string {
	t.Helper()
	block, _ := pem.Decode([]byte(read(t, n.csr(t))))
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, i.certificate, request.PublicKey, i.key)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
