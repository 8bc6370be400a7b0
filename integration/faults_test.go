package integration

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/internal/need"
)

// The daemon is killed in the middle of 500 parallel requests, again and again:
// every certificate that a client holds is in the ledger, the ledger is whole,
// and the daemon starts again without help.
func TestKilledUnderLoad(t *testing.T) {
	l, csr := newSigner(t)
	rounds, clients := 3, 500
	if long {
		rounds = 20
	}
	held := map[string]bool{} // serial numbers
	unanswered := 0
	for round := range rounds {
		answers := make(chan string, clients)
		for i := range clients {
			go func() { answers <- askOnce(l, fmt.Sprintf("kubemaster-%d-%d", round, i), csr) }()
		}
		killAt := 1 + rand.IntN(clients/2)
		for answered := 1; answered <= clients; answered++ {
			if serial := serialOf(<-answers); serial != "" {
				held[serial] = true
			} else {
				unanswered++
			}
			if answered == killAt {
				l.Signer.Kill()
			}
		}
		if err := l.StartSigner(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("%d kills: %d certificates in clients' hands, %d requests unanswered", rounds, len(held), unanswered)
	if len(held) == 0 || unanswered == 0 {
		t.Error("the kills did not come in the middle of the requests")
	}
	for serial := range recorded(t, l) {
		delete(held, serial)
	}
	if len(held) > 0 {
		t.Errorf("%d certificates are not in the ledger: %v", len(held), held)
	}
	if _, err := l.Run("", l.Binary, "ledger", "verify", "--config", l.Path("signerd.yaml")); err != nil {
		t.Error(err)
	}
}

func askOnce(l *lab.Lab, name, csr string) string {
	client, err := l.Dial("operator")
	if err != nil {
		return ""
	}
	defer client.Close()
	stdout, _, _, err := lab.Ask(client, name, csr)
	if err != nil {
		return "" // the whole answer did not come
	}
	return stdout
}

func serialOf(certificate string) string {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return ""
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%032x", c.SerialNumber)
}

// recorded gives the serial numbers in the ledger.
func recorded(t *testing.T, l *lab.Lab) map[string]bool {
	t.Helper()
	out, err := l.Run("", l.Binary, "ledger", "show", "--json", "--config", l.Path("signerd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]bool{}
	for line := range strings.Lines(out) {
		var entry struct{ Event, Serial string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Event == "issue" {
			serials[strings.Repeat("0", 32-len(entry.Serial))+entry.Serial] = true
		}
	}
	return serials
}

// On a full disk nothing is signed, get-* answers, a hold can still be ended,
// and everything recovers by itself when there is space.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		need.Lacking(t, "mounting a small disk needs root")
	}
	l := newLab(t, "")
	ledger := l.Path("ledger")
	if err := os.Mkdir(ledger, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", ledger, "tmpfs", 0, "size=4m"); err != nil {
		need.Lacking(t, "mounting a small disk: "+err.Error())
	}
	t.Cleanup(func() {
		l.Close()
		if err := unix.Unmount(ledger, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	newClient(t, l, "kubemaster-01")
	csr := read(t, l.Path("kubemaster-01.csr"))
	fill := filepath.Join(ledger, "other-data")
	fillUp(t, fill)

	for _, name := range []string{"kubemaster-01", "kubemaster-02"} {
		refused(t, l, 75, "cannot write its ledger, so nothing was signed", csr, name)
	}
	ssh(t, l, "", "get-certificate")
	ssh(t, l, "", "get-status")
	if got := ssh(t, l, "", "release", "kubemaster-01"); !strings.Contains(got, "released kubemaster-01") {
		t.Errorf("release on a full disk: %q", got)
	}
	if !strings.Contains(read(t, l.Path("signerd.log")), "no space left on device") {
		t.Error("the journal does not say why")
	}

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	ssh(t, l, csr, "kubemaster-02")
	if _, err := l.Run("", l.Binary, "ledger", "verify", "--config", l.Path("signerd.yaml")); err != nil {
		t.Error(err)
	}
	// It also starts on a full disk, and then serves what needs no line.
	if err := l.Signer.Stop(); err != nil {
		t.Fatal(err)
	}
	fillUp(t, fill)
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	ssh(t, l, "", "get-certificate")
	refused(t, l, 75, "cannot write its ledger", csr, "kubemaster-02")
}

// A step of a rotation that finds the disk full is not done, says so, and is done when
// there is space.
func TestRotateOnFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		need.Lacking(t, "mounting a small disk needs root")
	}
	l := newLab(t, "")
	authority := l.Path("authority")
	if out, err := l.Run("", "sh", "-c", "mv authority saved && mkdir -m 700 authority && mount -t tmpfs -o size=256k,mode=700 tmpfs authority && cp -a saved/. authority/"); err != nil {
		t.Fatal(out, err)
	}
	t.Cleanup(func() {
		l.Close()
		if err := unix.Unmount(authority, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	startCluster(t, l)
	fill := filepath.Join(authority, "other-data")
	before := read(t, l.Path("authority/state.json"))
	for _, step := range []string{"prepare", "activate"} {
		fillUp(t, fill)
		refused(t, l, 75, "the signer's disk is full", "", "rotate", step)
		if now := read(t, l.Path("authority/state.json")); now != before {
			t.Errorf("after %s the state is\n%s", step, now)
		}
		if err := os.Remove(fill); err != nil {
			t.Fatal(err)
		}
		ssh(t, l, "", "rotate", step)
		before = read(t, l.Path("authority/state.json"))
	}
}

// fillUp takes all space of a disk.
func fillUp(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 1 << 16; size > 0; {
		if _, err := file.Write(bytes.Repeat([]byte("x"), size)); err != nil {
			size /= 2
		}
	}
}

// Two clients race for one name with the real client: exactly one gets it, the
// other is told until when, every time.
func TestRaceForAName(t *testing.T) {
	l, first := newSigner(t)
	second, err := l.NewRequest("second")
	if err != nil {
		t.Fatal(err)
	}
	races := 25
	if long {
		races = 1000
	}
	var won [2]int
	for race := range races {
		name := fmt.Sprintf("kubemaster-%d", race)
		var errs [2]error
		var outs [2]string
		var group sync.WaitGroup
		for i, csr := range []string{first, second} {
			group.Go(func() { outs[i], errs[i] = l.SSH(csr, name) })
		}
		group.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		loser := 1 - winner
		won[winner]++
		if errs[winner] != nil || lab.ExitCode(errs[loser]) != 77 || outs[loser] != "" || !strings.Contains(errs[loser].Error(), "is held by another key until 20") {
			t.Fatalf("race %d: %v, %v", race, errs[0], errs[1])
		}
	}
	t.Logf("%d races, won %v", races, won)
}

// SIGTERM lets a request that is under way finish, and ends with status 0.
func TestTermLetsRequestsFinish(t *testing.T) {
	l, csr := newSigner(t)
	client, err := l.Dial("operator")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	session.Stdout = &stdout
	if err := session.Start("kubemaster-01"); err != nil {
		t.Fatal(err)
	}
	if err := l.Signer.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "new connections are refused", func() bool {
		another, err := l.Dial("operator")
		if err == nil {
			_ = another.Close()
		}
		return err != nil
	})
	if _, err := stdin.Write([]byte(csr)); err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	if err := session.Wait(); err != nil || serialOf(stdout.String()) == "" {
		t.Errorf("the request under way: %v, %q", err, stdout.String())
	}
	_ = client.Close()
	if err := l.Signer.Stop(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// ca create that is killed at any moment has made a CA, or none and no trace
// that the next one stumbles over.
func TestKilledWhileMakingTheCA(t *testing.T) {
	l := newLab(t, "")
	if err := os.RemoveAll(l.Path("authority")); err != nil {
		t.Fatal(err)
	}
	rounds, made := 20, 0
	if long {
		rounds = 200
	}
	for range rounds {
		cmd := exec.Command(l.Binary, "ca", "create", "--config", l.Path("signerd.yaml"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(rand.IntN(20000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(l.Path("authority")); err != nil {
			continue
		}
		made++
		if _, err := l.Run("", l.Binary, "check", "--config", l.Path("signerd.yaml")); err != nil {
			t.Errorf("the CA that was made: %v", err)
		}
		if err := os.RemoveAll(l.Path("authority")); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d were made before the kill", made, rounds)
	if _, err := l.Run("", l.Binary, "ca", "create", "--config", l.Path("signerd.yaml")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(l.Path("authority.*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
