package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/internal/need"
)

// sshClient is a program that asks a lab's signer as ssh does.
type sshClient struct {
	name string
	says string // on stderr whatever is asked; a format for the host
	argv func(t *testing.T, l *lab.Lab, command string) []string
}

// sshClients are the clients that users have. Go's is asked by lab.Ask.
var sshClients = []sshClient{
	{"openssh", "", func(_ *testing.T, l *lab.Lab, command string) []string {
		return []string{"ssh", "-F", l.Path("ssh_config"), "signer@leader", command}
	}},
	{"dropbear", "dbclient: Caution, skipping hostkey check for %s\n\n", func(t *testing.T, l *lab.Lab, command string) []string {
		need.Programs(t, "dbclient", "dropbearconvert")
		convertOnce(t, l, "operator.dropbear", "dropbearconvert", "openssh", "dropbear", "operator", "operator.dropbear")
		return []string{"dbclient", "-y", "-y", "-p", "2222", "-i", l.Path("operator.dropbear"), "signer@" + l.Address(1), command}
	}},
	{"plink", "", func(t *testing.T, l *lab.Lab, command string) []string {
		need.Programs(t, "plink", "puttygen")
		convertOnce(t, l, "operator.ppk", "puttygen", "operator", "-O", "private", "-o", "operator.ppk")
		line, err := l.Run("", "ssh-keygen", "-l", "-f", "host_key.pub")
		if err != nil {
			t.Fatal(err)
		}
		return []string{"plink", "-batch", "-P", "2222", "-i", l.Path("operator.ppk"), "-hostkey", strings.Fields(line)[1], "signer@" + l.Address(1), command}
	}},
	{"paramiko", "", func(t *testing.T, l *lab.Lab, command string) []string {
		const python = "/usr/bin/python3" // Debian's, for which its packages are
		if exec.Command(python, "-c", "import paramiko").Run() != nil {
			need.Lacking(t, "python3-paramiko is missing")
		}
		return []string{python, "testdata/paramiko_client.py", l.Address(1), "2222", l.Path("operator"), command}
	}},
}

// convertOnce makes a key in a client's own format.
func convertOnce(t *testing.T, l *lab.Lab, made string, argv ...string) {
	t.Helper()
	if _, err := os.Stat(l.Path(made)); err == nil {
		return
	}
	if _, err := l.Run("", argv[0], argv[1:]...); err != nil {
		t.Fatal(err)
	}
}

// asker asks one command and gives all that came of it.
type asker func(command, stdin string) (stdout, stderr string, status int)

func (c sshClient) asker(t *testing.T, l *lab.Lab) asker {
	return func(command, stdin string) (string, string, int) {
		argv := c.argv(t, l, command)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		said := stderr.String()
		if c.says != "" {
			said = strings.TrimPrefix(said, fmt.Sprintf(c.says, l.Address(1)))
		}
		return stdout.String(), said, cmd.ProcessState.ExitCode()
	}
}

func goAsker(t *testing.T, l *lab.Lab) asker {
	return func(command, stdin string) (string, string, int) {
		client, err := l.Dial("operator")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		stdout, stderr, status, err := lab.Ask(client, command, stdin)
		if err != nil {
			t.Fatal(err)
		}
		return stdout, stderr, status
	}
}

// requestsBy makes one request with each tool.
var requestsBy = map[string]func(*testing.T, *lab.Lab) string{
	"openssl": func(t *testing.T, l *lab.Lab) string {
		csr, err := l.NewRequest("by-openssl")
		if err != nil {
			t.Fatal(err)
		}
		return csr
	},
	"certtool": func(t *testing.T, l *lab.Lab) string {
		need.Programs(t, "certtool")
		write(t, l.Path("certtool.template"), "cn = ignored\n")
		for _, args := range [][]string{
			{"--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", "by-certtool.key"},
			{"--generate-request", "--load-privkey", "by-certtool.key", "--template", "certtool.template", "--outfile", "by-certtool.csr"},
		} {
			if _, err := l.Run("", "certtool", args...); err != nil {
				t.Fatal(err)
			}
		}
		return read(t, l.Path("by-certtool.csr"))
	},
	"Go": func(t *testing.T, _ *lab.Lab) string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ignored"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	},
}

// encodings are the ways in which a request travels.
var encodings = map[string]func(string) string{
	"wrapped": func(csr string) string { return wrapped(csr, "\n") },
	"flat":    func(csr string) string { return base64.StdEncoding.EncodeToString([]byte(csr)) },
	"crlf":    func(csr string) string { return wrapped(csr, "\r\n") },
	"pem":     func(csr string) string { return csr },
	"der": func(csr string) string {
		block, _ := pem.Decode([]byte(csr))
		return base64.StdEncoding.EncodeToString(block.Bytes)
	},
}

// wrapped is base64 in lines of 76, as base64(1) writes it.
func wrapped(csr, end string) string {
	text := base64.StdEncoding.EncodeToString([]byte(csr))
	var lines strings.Builder
	for len(text) > 0 {
		n := min(76, len(text))
		lines.WriteString(text[:n] + end)
		text = text[n:]
	}
	return lines.String()
}

// Every client that users have can do all that there is to do, gets the exit
// status and the line on stderr, and may still be sending when it is refused.
func TestEveryClient(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	if err := os.Remove(l.Path("authorized_keys")); err != nil {
		t.Fatal(err)
	}
	if err := l.Authorize(`permit="get-*,kubemaster-*,release *,remove *,etcd-*=127.9.9.1,etcd-*=127.9.9.2,etcd-*=127.9.9.3,etcd-*=127.9.9.4,etcd-*=127.9.9.5"`, "operator"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(); err != nil {
		t.Fatal(err)
	}
	askers := map[string]asker{"go": goAsker(t, l)}
	for _, c := range sshClients {
		askers[c.name] = c.asker(t, l)
	}
	requests := map[string]string{}
	for tool, make := range requestsBy {
		requests[tool] = make(t, l)
	}
	ca := read(t, l.Path("ca.crt"))
	addresses := 0
	for client, ask := range askers {
		addresses++
		newcomer := fmt.Sprintf("etcd-%s=127.9.9.%d", client, addresses)
		t.Run(client, func(t *testing.T) {
			expect := func(command, stdin string, status int, stdout, stderr string) {
				t.Helper()
				gotOut, gotErr, got := ask(command, stdin)
				if got != status || !strings.HasPrefix(gotOut, stdout) || status != 0 && gotOut != "" || !strings.Contains(gotErr, stderr) {
					t.Errorf("%s: status %d, stdout %.300q, stderr %q", command, got, gotOut, gotErr)
				}
			}
			expect("help", "", 0, "signerd: a certificate authority", "")
			expect("get-certificate", "", 0, ca, "")
			expect("get-peers", "", 0, "https://"+l.Address(11)+":2379\n", "")
			expect("get-topology", "", 0, "etcd-1=https://"+l.Address(11)+":2380\n", "")
			if status, _, _ := ask("get-status", ""); !json.Valid([]byte(status)) {
				t.Errorf("get-status: %q", status)
			}
			for tool, csr := range requests {
				for encoding, encode := range encodings {
					name := strings.ToLower(fmt.Sprintf("kubemaster-%s-%s-%s", client, tool, encoding))
					answer, stderr, status := ask(name, encode(csr))
					if status != 0 || stderr != "" {
						t.Errorf("%s: status %d, %q", name, status, stderr)
						continue
					}
					write(t, l.Path(name+".crt"), answer)
					if _, err := l.Run("", "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.crt", name+".crt"); err != nil {
						t.Error(err)
					}
				}
			}
			csr := encodings["wrapped"](requests["openssl"])
			expect(newcomer, csr, 0, "-----BEGIN CERTIFICATE-----", "")
			expect("remove etcd-"+client, "", 0, "", "")
			expect("release kubemaster-"+client+"-go-flat", "", 0, "", "")

			expect("no such command", "", 64, "", "help")
			expect("Not_a_name", csr, 2, "", "bad name")
			expect("not-mine", csr, 77, "", "denied")
			expect("kubemaster-01", "nonsense", 3, "", "bad request")
			expect("kubemaster-01", strings.Repeat("QUJD", 20<<10), 3, "", "longer than")
			expect("kubemaster-"+client+"-openssl-pem", encodings["flat"](requests["Go"]), 77, "", "held by another key")
		})
	}
	for _, c := range sshClients {
		t.Run(c.name+"/pipe", func(t *testing.T) {
			// The pipe of a producer that is still writing does not break.
			for command, status := range map[string]string{"not-mine": "77", "kubemaster-01": "3", "no such command": "64"} {
				argv := c.argv(t, l, command)
				cmd := exec.Command("bash", append([]string{"-c", `head -c 4000000 /dev/zero | "$@"; echo "${PIPESTATUS[@]}"`, "bash"}, argv...)...)
				out, err := cmd.Output()
				if err != nil || string(out) != "0 "+status+"\n" {
					t.Errorf("%s: producer and client ended with %q, %v; want 0 %s", command, out, err, status)
				}
			}
		})
	}
}

// Requests at once over one ControlMaster all succeed: those beyond the
// sessions that a connection may have come over connections of their own.
func TestControlMaster(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	csr, err := l.NewRequest("kubemaster-01")
	if err != nil {
		t.Fatal(err)
	}
	master := []string{"-F", l.Path("ssh_config"), "-o", "ControlPath=" + l.Path("master"), "signer@leader"}
	background := exec.Command("ssh", append([]string{"-M", "-N"}, master...)...)
	if err := background.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = background.Process.Kill()
		_ = background.Wait()
	}()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if _, err := l.Run("", "ssh", append([]string{"-O", "check"}, master...)...); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the master does not answer")
		}
	}
	before := strings.Count(read(t, l.Path("signerd.log")), `"message":"session"`)
	const atOnce = 12
	var group sync.WaitGroup
	for range atOnce {
		group.Go(func() {
			chain, err := l.Run(csr, "ssh", append(master, "kubemaster-01")...)
			if err != nil || !strings.HasPrefix(chain, "-----BEGIN CERTIFICATE-----") {
				t.Errorf("%.100q, %v", chain, err)
			}
		})
	}
	group.Wait()
	if got := strings.Count(read(t, l.Path("signerd.log")), `"message":"session"`) - before; got != atOnce {
		t.Errorf("%d sessions for %d requests", got, atOnce)
	}
}

// What ssh can ask for beside a command is refused, and says so; where ssh goes
// on without it, the answer comes.
func TestNothingButCommands(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	peers := "https://" + l.Address(11) + ":2379\n"
	config := []string{"-F", l.Path("ssh_config"), "-o", "LogLevel=INFO"}
	for _, test := range []struct {
		program string
		args    []string
		status  int
		stdout  string
		stderr  string
	}{
		{"ssh", []string{"-tt", "signer@leader", "get-peers"}, 255, "", "PTY allocation request failed"},
		{"ssh", []string{"-o", "SendEnv=LANG", "-o", "SetEnv=A=b", "signer@leader", "get-peers"}, 0, peers, ""},
		{"ssh", []string{"-W", "127.0.0.1:22", "signer@leader"}, 255, "", "administratively prohibited"},
		{"ssh", []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:22", "signer@leader"}, 255, "", "remote port forwarding failed"},
		{"ssh", []string{"-s", "signer@leader", "netconf"}, 255, "", "subsystem request failed"},
		{"sftp", []string{"-b", "/dev/null", "signer@leader"}, 255, "", "subsystem request failed"},
		{"ssh", []string{"signer@leader"}, 64, "", "a certificate authority"}, // a shell
	} {
		cmd := exec.Command(test.program, append(config, test.args...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Env = append(os.Environ(), "LANG=C")
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != test.status || stdout.String() != test.stdout || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%s %v: status %d, %q, %q", test.program, test.args, got, &stdout, &stderr)
		}
	}
	t.Run("agent", func(t *testing.T) {
		out, err := l.Run("", "ssh-agent", append([]string{"ssh"}, append(config, "-A", "signer@leader", "get-peers")...)...)
		if err != nil || out != peers {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("X11", func(t *testing.T) {
		need.Programs(t, "xauth")
		cmd := exec.Command("ssh", append(config, "-X", "signer@leader", "get-peers")...)
		cmd.Env = append(os.Environ(), "DISPLAY=127.0.0.1:99")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || string(out) != peers || !strings.Contains(stderr.String(), "X11 forwarding request failed") {
			t.Errorf("%q, %q, %v", out, &stderr, err)
		}
	})
	t.Run("-L", func(t *testing.T) {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := free.Addr().String()
		_ = free.Close()
		cmd := exec.Command("ssh", append(config, "-N", "-L", address+":127.0.0.1:22", "signer@leader")...)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
			c, err := net.Dial("tcp", address)
			if err == nil {
				defer c.Close()
				if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
					t.Errorf("through the tunnel came %q, %v", got, err)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		line := make([]byte, 200)
		if n, _ := stderr.Read(line); !strings.Contains(string(line[:n]), "administratively prohibited") {
			t.Errorf("ssh says %q", line[:n])
		}
	})
}

// The other clients get nothing else either: no subsystem, no tunnel. PuTTY goes
// on without the terminal that it asked for.
func TestNothingButCommandsElsewhere(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	peers := "https://" + l.Address(11) + ":2379\n"
	for _, test := range []struct {
		client, options, command string
		stdout                   string // empty: it is refused, though dbclient ends with 0
	}{
		{"plink", "-t", "get-peers", peers},
		{"plink", "-A -X", "get-peers", peers},
		{"plink", "-s", "sftp", ""},
		{"plink", "-nc 127.0.0.1:22", "", ""},
		{"dropbear", "-A", "get-peers", peers},
		{"dropbear", "-s", "sftp", ""},
		{"dropbear", "-B 127.0.0.1:22", "", ""},
	} {
		i := slices.IndexFunc(sshClients, func(c sshClient) bool { return c.name == test.client })
		argv := sshClients[i].argv(t, l, test.command)
		host := slices.IndexFunc(argv, func(word string) bool { return strings.HasPrefix(word, "signer@") })
		argv = slices.Insert(argv, host, strings.Fields(test.options)...)
		if test.command == "" {
			argv = argv[:len(argv)-1]
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		out, err := cmd.Output()
		cancel()
		if string(out) != test.stdout || test.stdout != "" && err != nil || test.stdout == "" && err == nil && test.client != "dropbear" {
			t.Errorf("%s %s: %q, %v", test.client, test.options, out, err)
		}
	}
}

// The runbook's line does from cron what it does at a prompt, in the shells
// that cron has. Where $HOSTNAME is empty, as in dash, nothing is written that
// could be taken for a certificate.
func TestCronLine(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	if _, err := l.NewRequest("client"); err != nil {
		t.Fatal(err)
	}
	need.Programs(t, "dash", "busybox")
	const line = `base64 < client.csr | ssh -F ssh_config signer@leader "$HOSTNAME" > client.crt`
	applets := l.Path("applets")
	if err := os.Mkdir(applets, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "base64"} {
		busybox, err := exec.LookPath("busybox")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(busybox, applets+"/"+applet); err != nil {
			t.Fatal(err)
		}
	}
	for shell, path := range map[string]string{"dash": "/usr/bin:/bin", applets + "/sh": applets + ":/usr/bin:/bin"} {
		run := func(environment ...string) (string, int) {
			cmd := exec.Command(shell, "-c", line)
			cmd.Dir = l.Dir
			cmd.Env = append([]string{"HOME=" + l.Dir, "LOGNAME=root", "SHELL=/bin/sh", "PATH=" + path}, environment...) // crontab(5)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			_ = cmd.Run()
			return stderr.String(), cmd.ProcessState.ExitCode()
		}
		if stderr, status := run("HOSTNAME=kubemaster-01"); status != 0 || stderr != "" {
			t.Errorf("%s: status %d, %q", shell, status, stderr)
		}
		if _, err := l.Run("", "openssl", "verify", "-purpose", "sslclient", "-CAfile", "ca.crt", "client.crt"); err != nil {
			t.Errorf("%s: %v", shell, err)
		}
		stderr, status := run("HOSTNAME=")
		if got := read(t, l.Path("client.crt")); status != 64 || got != "" || !strings.Contains(stderr, "a certificate authority") {
			t.Errorf("%s without a host name: status %d, %q, %q", shell, status, got, stderr)
		}
	}
}
