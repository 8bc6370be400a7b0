package authkeys

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/need"
)

// attempt is a line of authorized_keys and a login by it.
type attempt struct {
	options     string
	certificate func(*ssh.Certificate) // nil: a bare key
	source      string

	signer, ca ssh.Signer
}

// text is the attempt's line.
func (a *attempt) text() string {
	listed := a.signer
	if a.certificate != nil {
		listed = a.ca
	}
	return strings.TrimLeft(a.options+" ", " ") + marshal(listed.PublicKey())
}

// The parser is held against a real sshd: what sshd does not admit is not
// admitted here, what it forces is forced, and whatever is refused beyond that
// has a reason on the page. "permit" is ours and stays out.
func TestAgainstSSHD(t *testing.T) {
	if testing.Short() {
		t.Skip("it logs in some hundred times")
	}
	count := 300
	if os.Getenv("SIGNERD_LONG") != "" {
		count = 3000
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	attempts := append(chosen(), generated(1, count)...)
	dir := t.TempDir()
	var lines strings.Builder
	for _, a := range attempts {
		a.signer, a.ca = newSigner(t), newSigner(t)
		if a.certificate != nil {
			certificate := &ssh.Certificate{
				Key: a.signer.PublicKey(), CertType: ssh.UserCert, KeyId: "node",
				ValidPrincipals: []string{me.Username, "kubemaster-07"}, ValidBefore: ssh.CertTimeInfinity,
			}
			a.certificate(certificate)
			if err := certificate.SignCert(rand.Reader, a.ca); err != nil {
				t.Fatal(err)
			}
			if a.signer, err = ssh.NewCertSigner(certificate, a.signer); err != nil {
				t.Fatal(err)
			}
		}
		lines.WriteString(a.text() + "\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "authorized_keys"), []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	port := startSSHD(t, dir)

	type verdict struct {
		admitted bool
		output   string
	}
	theirs := make([]verdict, len(attempts))
	var group sync.WaitGroup
	turn := make(chan struct{}, 4)
	for i, a := range attempts {
		group.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			theirs[i].admitted, theirs[i].output = login(t, me.Username, port, a)
		})
	}
	group.Wait()

	if !theirs[0].admitted { // the first line is a bare key
		need.Lacking(t, "sshd lets "+me.Username+" in with no key at all; is the account locked?")
	}
	admitted, stricter, seen := 0, 0, map[string]bool{}
	for i, a := range attempts {
		var forced string
		keys, err := Parse("authorized_keys", []byte(a.text()))
		if err == nil {
			var grant *Grant
			if grant, err = keys.Admit(a.signer.PublicKey(), netip.MustParseAddr(a.source), time.Now()); err == nil {
				forced = grant.Forced
			}
		}
		their := theirs[i]
		switch {
		case err == nil && !their.admitted:
			t.Errorf("looser than sshd: %s from %s", a.options, a.source)
		case err == nil:
			admitted++
			// What is forced runs, as far as the shell finds it; names here are in lower case.
			if word, _, _ := strings.Cut(forced, " "); (forced == "") != (their.output == "asked\n") || !strings.Contains(strings.ToLower(their.output), word) {
				t.Errorf("%s: forced %q, in sshd %q", a.options, forced, their.output)
			}
		case their.admitted:
			stricter++
			reason := reasonFor(err)
			if seen[reason] = true; reason == "" {
				t.Errorf("stricter than sshd for no reason on the page: %s from %s: %v", a.options, a.source, err)
			}
		}
	}
	t.Logf("%d lines: %d admitted by both, %d by sshd alone", len(attempts), admitted, stricter)
	if admitted < len(attempts)/10 || stricter < len(attempts)/10 {
		t.Error("the lines are not varied enough to say anything")
	}
	page, err := os.ReadFile("../../doc/authorized_keys.5.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stricterThanSSHD {
		if !bytes.Contains(page, []byte("\n| "+s.row+" |")) {
			t.Errorf("the page has no row %q", s.row)
		}
		if !seen[s.row] {
			t.Errorf("nothing is stricter for the reason %q", s.row)
		}
	}
}

// stricterThanSSHD are the rows of the page's table, each with the error that
// comes of it.
var stricterThanSSHD = []struct {
	row   string
	error *regexp.Regexp
}{
	{"an option for what is never given", regexp.MustCompile(`asks for what signerd never gives`)},
	{"`verify-required`, on the line or in a certificate", regexp.MustCompile(`cannot be enforced|unsupported critical option "verify-required"`)},
	{"an empty option: a comma too many", regexp.MustCompile(`an option is missing at "[, ]`)},
	{"an option given twice", regexp.MustCompile(`given twice`)},
	{"`touch-required` with `no-touch-required`", regexp.MustCompile(`contradict each other`)},
	{"`command` with what is no command of signerd's", regexp.MustCompile(`option command: `)},
	{"`from` with a host name, or an address in another form than four numbers or IPv6", regexp.MustCompile(`is not an address, a network or a pattern`)},
	{"`from` with a network that is none, beside one that is", regexp.MustCompile(`: is not a network`)},
	{"`from` with an IPv4-mapped address", regexp.MustCompile(`is an IPv4-mapped`)},
	{"`principals` with what is no client's name", regexp.MustCompile(`option principals: `)},
	{"`expiry-time` with a day or second that does not exist, or a small `z`", regexp.MustCompile(`is not YYYYMMDD`)},
	{"a certificate's `force-command` with what is no command of signerd's", regexp.MustCompile(`its force-command: `)},
	{"a certificate without a principal that is a client's name", regexp.MustCompile(`it has no principal`)},
}

func reasonFor(err error) string {
	for _, s := range stricterThanSSHD {
		if s.error.MatchString(err.Error()) {
			return s.row
		}
	}
	return ""
}

const loopback4, otherLoopback, loopback6 = "127.0.0.1", "127.0.0.9", "::1"

func asItIs(*ssh.Certificate) {}

// chosen are lines that somebody thought of.
func chosen() []*attempt {
	var all []*attempt
	for _, source := range []string{loopback4, otherLoopback, loopback6} {
		for _, options := range []string{
			"", "restrict", "RESTRICT", "restrict,restrict", "restrict,", ",restrict", "restrict,,no-pty", "restrict ,no-pty", "restrict=", `restrict=""`, `"restrict"`,
			"no-pty\t", "no-x11-forwarding,No-Agent-Forwarding", "no-require-user-presence", "nonsense", "restrict;no-pty", "restrict,no pty",
			"pty", "restrict,pty", "port-forwarding", "agent-forwarding", "X11-forwarding", "user-rc", `permitopen="127.0.0.1:22"`, `permitlisten="22"`, `tunnel="0"`, `environment="A=b"`,
			"touch-required", "no-touch-required", "touch-required,no-touch-required", "verify-required", "no-verify-required",
			`command="get-peers"`, `COMMAND="get-peers"`, `command="get-peers`, `command=get-peers`, `command='get-peers'`, `command="get-peers"x`, `command="get-peers",command="get-peers"`,
			`command="  get-peers  "`, `command="echo hello"`, `command="echo \"hello\""`, `command="echo \\"`, `command=""`, `command="kubemaster-07"`, "command", "command=",
			`from="127.0.0.1"`, `from="127.0.0.9"`, `from="::1"`, `from="0:0:0:0:0:0:0:1"`, `from="::0001"`, `from="127.0.0.0/8"`, `from="127.0.0.1/8"`, `from="127.0.0.0/33"`, `from="::/0"`,
			`from="0.0.0.0/0"`, `from="*"`, `from="127.*"`, `from="127.0.0.?"`, `from="?27.0.0.1"`, `from="!127.0.0.9,127.*"`, `from="127.*,!127.0.0.9"`, `from="!127.0.0.9"`, `from=""`,
			`from=",127.0.0.1"`, `from="127.0.0.1,"`, `from="127.0.0.1,,::1"`, `from="127.0.0.1, ::1"`, `from="127.1"`, `from="0x7f.0.0.1"`, `from="2130706433"`, `from="127.0.0.01"`,
			`from="::ffff:127.0.0.1"`, `from="::ffff:127.0.0.1,127.0.0.1"`, `from="::ffff:127.0.0.0/104,127.*"`, `from="127.0.0.1,127.0.0.9/"`, `from="localhost"`, `from="localhost,127.0.0.1"`, `from="*.example,127.*"`, `from="127.0.0.[19]"`,
			`from="127.0.0.1/255.0.0.0"`, `from="::1%lo"`, `from="!*,127.0.0.1"`, `from="127.0.0.1",from="127.0.0.1"`, `FROM="127.0.0.1"`, `from="[::1]"`, `from="::1/128,127.0.0.1/32"`,
			`expiry-time="20990101"`, `expiry-time="20990101Z"`, `expiry-time="20990101UTC"`, `expiry-time="209901011200"`, `expiry-time="20990101120000Z"`, `expiry-time="20200101"`,
			`expiry-time="20990101",expiry-time="20200101"`, `expiry-time="20990101",expiry-time="20980101"`, `expiry-time="20990230"`, `expiry-time="20991231235960"`, `expiry-time="20991301"`,
			`expiry-time="2099-01-01"`, `expiry-time="always"`, `expiry-time=""`, `expiry-time="20990101z"`, `expiry-time=" 20990101"`, `expiry-time="1"`,
			`principals="kubemaster-07"`, "cert-authority", `from="127.0.0.1" `, " restrict", "\trestrict", `from="127.0.0.1"` + "\t ",
		} {
			all = append(all, &attempt{options: options, source: source})
		}
	}
	option := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} }
	}
	for _, options := range []string{
		"cert-authority", "", "CERT-AUTHORITY,restrict", `cert-authority,principals="kubemaster-07"`, `cert-authority,principals="kubemaster-08"`, `cert-authority,principals="kubemaster-08,kubemaster-07"`,
		`cert-authority,principals=""`, `cert-authority,principals="Kube Master,kubemaster-07"`, `cert-authority,command="get-peers"`, `cert-authority,from="127.0.0.9"`, `cert-authority,expiry-time="20200101"`,
	} {
		for _, change := range []func(*ssh.Certificate){
			asItIs, option(forceCommand, "get-peers"), option(forceCommand, "echo no!"), option(sourceAddress, "127.0.0.0/8"), option(sourceAddress, "10.0.0.0/8"), option(sourceAddress, "127.*"),
			option(sourceAddress, ""), option("verify-required", ""), option("nonsense", ""),
			func(c *ssh.Certificate) { c.ValidPrincipals = nil },
			func(c *ssh.Certificate) { c.ValidPrincipals = c.ValidPrincipals[:1] }, // the user's name alone
			func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
			func(c *ssh.Certificate) { c.ValidBefore = 1 },
			func(c *ssh.Certificate) { c.ValidAfter = ssh.CertTimeInfinity - 1 },
		} {
			all = append(all, &attempt{options: options, certificate: change, source: loopback4})
		}
	}
	return all
}

// generated are lines made of what occurs in lines, and then damaged now and
// then. The same seed gives the same lines.
func generated(seed uint64, count int) []*attempt {
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	one := func(list ...string) string { return list[random.IntN(len(list))] }
	address := func() string {
		return one("127.0.0.1", "127.0.0.9", "::1", "10.0.0.1", "127.0.0.0/8", "127.0.0.8/29", "127.0.0.1/32", "::/64", "127.0.0.9/8", "127.*", "127.0.0.?", "*", "::*", "?:*", "fe80::/10", "localhost", "")
	}
	option := func() string {
		switch random.IntN(9) {
		case 0, 1, 2:
			sources := make([]string, 1+random.IntN(3))
			for i := range sources {
				sources[i] = one("", "", "", "!") + address()
			}
			return `from="` + strings.Join(sources, ",") + `"`
		case 3:
			return `expiry-time="` + one("20200101", "20990101", "209912312359", "20990101000000", "20261131", "2099") + one("", "", "Z", "UTC", "z") + `"`
		case 4:
			return `command="` + one("get-peers", "get-status", "kubemaster-07", "help", "uptime-is-no-command", "etcd-1=10.0.0.1", `\"`, "get-peers ") + `"`
		case 5:
			return one("pty", "user-rc", "port-forwarding", "verify-required", "nonsense", "cert-authority", `principals="kubemaster-07"`)
		default:
			return one("restrict", "no-pty", "no-port-forwarding", "no-agent-forwarding", "no-X11-forwarding", "no-user-rc", "touch-required", "no-touch-required", "no-verify-required")
		}
	}
	damage := func(text string) string {
		at := random.IntN(len(text) + 1)
		switch random.IntN(4) {
		case 0:
			return text[:at] + one(",", `"`, `\`, " ", "=", "\t", "x", "!", "#") + text[at:]
		case 1:
			return text[:at]
		case 2:
			return text[:at] + strings.ToUpper(text[at:])
		default:
			return text[:at] + text[min(len(text), at+1):]
		}
	}
	var all []*attempt
	for range count {
		options := make([]string, 1+random.IntN(3))
		for i := range options {
			options[i] = option()
		}
		text := strings.Join(options, ",")
		if random.IntN(3) == 0 {
			text = damage(text)
		}
		a := &attempt{options: text, source: one(loopback4, loopback4, otherLoopback, loopback6)}
		if strings.Contains(text, "cert-authority") && random.IntN(2) == 0 {
			a.certificate = asItIs
		}
		all = append(all, a)
	}
	return all
}

// startSSHD runs the stock server on loopback for the calling user and gives its
// port.
func startSSHD(t *testing.T, dir string) string {
	t.Helper()
	const program = "/usr/sbin/sshd"
	need.Programs(t, program, "ssh-keygen")
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // of its privilege separation
			t.Fatal(err)
		}
	}
	hostKey := filepath.Join(dir, "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if six, err := net.Listen("tcp", "[::1]:0"); err != nil {
		need.Lacking(t, "there is no IPv6 on loopback")
	} else {
		_ = six.Close()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close()
	config := fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nListenAddress ::1\nHostKey %s\nAuthorizedKeysFile %s\nSetEnv HOME=%s\n"+
		"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPermitTTY no\nPrintLastLog no\nMaxStartups 500\nLogLevel QUIET\n",
		port, hostKey, filepath.Join(dir, "authorized_keys"), dir)
	path := filepath.Join(dir, "sshd_config")
	write := func(more string) {
		if err := os.WriteFile(path, []byte(config+more), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("PerSourcePenalties no\n") // since OpenSSH 9.8
	if exec.Command(program, "-t", "-f", path).Run() != nil {
		write("")
	}
	cmd := exec.Command(program, "-D", "-e", "-f", path)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return port
		}
		if time.Now().After(deadline) {
			t.Fatal("sshd does not listen")
		}
	}
}

// login says whether sshd admits an attempt, and what "echo asked" then gives.
func login(t *testing.T, username, port string, a *attempt) (admitted bool, output string) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(a.source)}, Timeout: 20 * time.Second}
	server := "127.0.0.1"
	if a.source == loopback6 {
		server = loopback6
	}
	raw, err := dialer.Dial("tcp", net.JoinHostPort(server, port))
	if err != nil {
		t.Error(err)
		return false, ""
	}
	defer raw.Close()
	connection, channels, requests, err := ssh.NewClientConn(raw, server, &ssh.ClientConfig{
		User: username, Auth: []ssh.AuthMethod{ssh.PublicKeys(a.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		if !strings.Contains(err.Error(), "unable to authenticate") {
			t.Errorf("%s: %v", a.options, err)
		}
		return false, ""
	}
	client := ssh.NewClient(connection, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Error(err)
		return true, ""
	}
	out, err := session.CombinedOutput("echo asked")
	if _, ended := errors.AsType[*ssh.ExitError](err); err != nil && !ended {
		t.Errorf("%s: %v", a.options, err)
	}
	return true, string(out)
}
