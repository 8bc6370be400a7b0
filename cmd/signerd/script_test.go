package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/signerd/signerd/internal/need"
	"github.com/signerd/signerd/signer"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"signerd": main,
	})
}

// TestScripts runs testdata/script: each file is a promise to users, kept with
// the stock ssh, ssh-keygen and openssl. Beside testscript's own commands there
// are
//
//	signer              makes a CA, keys and a configuration, and starts signerd
//	start, stop, reload what systemd does
//	status N CMD...     CMD must end with exit status N
//	csr NAME            NAME.key and NAME.csr, P-256
//	tomorrow DIR        makes a CA that is valid from tomorrow on
func TestScripts(t *testing.T) {
	need.Programs(t, "ssh", "ssh-keygen", "openssl")
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"signer": makeSigner,
			"start":  func(ts *testscript.TestScript, _ bool, _ []string) { startSigner(ts) },
			"stop":   func(ts *testscript.TestScript, _ bool, _ []string) { stopSigner(ts) },
			"reload": func(ts *testscript.TestScript, _ bool, _ []string) { reloadSigner(ts) },
			"status": exitStatus,
			"csr":    makeRequest,
			"tomorrow": func(ts *testscript.TestScript, _ bool, args []string) {
				_, err := signer.CreateAuthority(ts.MkAbs(args[0]), "prod-a", "p256", time.Now().Add(24*time.Hour))
				ts.Check(err)
			},
			"link": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.Symlink(args[0], ts.MkAbs(args[1])))
			},
		},
		Setup: func(env *testscript.Env) error {
			env.Values[running{}] = &background{}
			return nil
		},
	})
}

// running is the key of a script's *background.
type running struct{}

type background struct {
	cmd *exec.Cmd
	log string
}

func theDaemon(ts *testscript.TestScript) *background { return ts.Value(running{}).(*background) }

// makeSigner prepares $WORK: authorized_keys has the operator's key.
func makeSigner(ts *testscript.TestScript, _ bool, _ []string) {
	for _, name := range []string{"host_key", "operator", "stranger"} {
		ts.Check(ts.Exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name))
	}
	write(ts, "signerd.yaml", `cluster: prod-a
listen: "127.0.0.1:0"
host_key: host_key
authorized_keys: authorized_keys
authority: authority
ledger: ledger
etcd: [https://127.0.0.1:1]
`)
	write(ts, "authorized_keys", `permit="get-*,kubemaster-*,release *" `+ts.ReadFile("operator.pub"))
	ts.Check(os.Chmod(ts.MkAbs("authorized_keys"), 0o600))
	ts.Check(ts.Exec("signerd", "ca", "create", "--config", "signerd.yaml"))
	startSigner(ts)
	ts.Defer(func() {
		if d := theDaemon(ts); d.cmd != nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
	})
}

func write(ts *testscript.TestScript, name, content string) {
	ts.Check(os.WriteFile(ts.MkAbs(name), []byte(content), 0o644))
}

func startSigner(ts *testscript.TestScript) {
	d := theDaemon(ts)
	d.log = ts.MkAbs("signerd.log")
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer log.Close()
	binary, err := exec.LookPath("signerd")
	ts.Check(err)
	d.cmd = exec.Command(binary, "serve", "--config", "signerd.yaml")
	d.cmd.Dir, d.cmd.Stderr = ts.Getenv("WORK"), log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Type=notify (systemd.service(5)): READY=1 comes when it serves.
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ts.MkAbs("notify"), Net: "unixgram"})
	ts.Check(err)
	defer os.Remove(ts.MkAbs("notify"))
	defer systemd.Close()
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ts.MkAbs("notify"))
	ts.Check(d.cmd.Start())
	ts.Check(systemd.SetReadDeadline(time.Now().Add(20 * time.Second)))
	message := make([]byte, 100)
	n, err := systemd.Read(message)
	if err != nil || string(message[:n]) != "READY=1" {
		data, _ := os.ReadFile(d.log)
		ts.Fatalf("systemd was told %q, %v\n%s", message[:n], err, data)
	}
	address := strings.Trim(after(ts, `"address":`, "listening"), `"`)
	port := address[strings.LastIndex(address, ":")+1:]
	host := fmt.Sprintf("[127.0.0.1]:%s %s", port, ts.ReadFile("host_key.pub"))
	write(ts, "known_hosts", host)
	write(ts, "ssh_config", fmt.Sprintf(`Host signer
    HostName 127.0.0.1
    Port %s
    UserKnownHostsFile %s
    StrictHostKeyChecking yes
    IdentitiesOnly yes
    BatchMode yes
    LogLevel ERROR
`, port, ts.MkAbs("known_hosts")))
	ts.Setenv("ASK", "-F"+ts.MkAbs("ssh_config"))
}

// after waits for a message in the daemon's log and gives the member after key.
func after(ts *testscript.TestScript, key, message string) string {
	d := theDaemon(ts)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		data, err := os.ReadFile(d.log)
		ts.Check(err)
		for line := range bytes.Lines(data) {
			if !bytes.Contains(line, []byte(`"message":"`+message)) {
				continue
			}
			_, rest, _ := strings.Cut(string(line), key)
			value, _, _ := strings.Cut(rest, ",")
			return value
		}
	}
	data, _ := os.ReadFile(d.log)
	ts.Fatalf("no %q in the log:\n%s", message, data)
	return ""
}

func stopSigner(ts *testscript.TestScript) {
	d := theDaemon(ts)
	ts.Check(d.cmd.Process.Signal(syscall.SIGTERM))
	ts.Check(d.cmd.Wait())
	d.cmd = nil
}

func reloadSigner(ts *testscript.TestScript) {
	d := theDaemon(ts)
	ts.Check(os.Truncate(d.log, 0))
	ts.Check(d.cmd.Process.Signal(syscall.SIGHUP))
	after(ts, "", "authorized_keys ")
}

func exitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N CMD [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Exec returns it as it is
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func makeRequest(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		ts.Check(ts.Exec("openssl", "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name+".key"))
		ts.Check(os.Chmod(ts.MkAbs(name+".key"), 0o600))
		ts.Check(ts.Exec("openssl", "req", "-new", "-key", name+".key", "-subj", "/CN="+name, "-out", name+".csr"))
	}
}
