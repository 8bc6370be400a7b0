package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/need"
)

// All nodes of a large cluster, each with its own key, name and address, ask one
// signer with its usual limits within one minute, half of them at its first second:
// whoever is turned away is told to try again, and each has its certificate in time.
func TestOneMinute(t *testing.T) {
	need.Programs(t, "flock")
	nodes := 100
	if long {
		nodes = 1000
	}
	l := usualLab(t, "")
	dir := t.TempDir()
	listed, err := os.OpenFile(l.Path("authorized_keys"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprintf("kubemaster-%04d", i) }
	for i := range nodes {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		block, err := gossh.MarshalPrivateKey(private, name(i))
		if err != nil {
			t.Fatal(err)
		}
		key, err := gossh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		home := filepath.Join(dir, name(i))
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(home+"/ssh", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(listed, "permit=\"get-*,%s\" %s", name(i), gossh.MarshalAuthorizedKey(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := listed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	stock, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	write(t, bin+"/ssh", "#!/bin/sh\nexec "+stock+" -F none -b \"$FROM\" \"$@\"\n")
	if err := os.Chmod(bin+"/ssh", 0o755); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../packaging/signer-renew")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	took := make([]time.Duration, nodes)
	problems := make([]string, nodes)
	var group sync.WaitGroup
	for i := range nodes {
		group.Go(func() {
			home := filepath.Join(dir, name(i))
			args := []string{"-d", home, "-n", name(i), "-i", home + "/ssh", "-k", l.Path("known_hosts"), "-t", "120"}
			if i%2 == 1 {
				args = append(args, "-j", "60")
			}
			cmd := exec.Command(script, append(args, l.Address(1)+":2222")...)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), fmt.Sprintf("FROM=127.200.%d.%d", i/250, 1+i%250))
			out, err := cmd.CombinedOutput()
			took[i] = time.Since(began)
			if err != nil {
				problems[i] = fmt.Sprintf("%v: %s", err, out)
			}
		})
	}
	group.Wait()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, l.Path("authority/active.crt"))))
	longest := time.Duration(0)
	for i := range nodes {
		longest = max(longest, took[i])
		if problems[i] != "" {
			t.Errorf("%s: %s", name(i), problems[i])
			continue
		}
		home := filepath.Join(dir, name(i))
		pair, err := tls.LoadX509KeyPair(home+"/client.crt", home+"/client.key")
		if err == nil {
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSName: name(i)})
		}
		if err != nil {
			t.Errorf("%s: %v", name(i), err)
		}
	}
	statuses := map[int]int{}
	turnedAway := 0
	for line := range strings.Lines(read(t, l.Path("signerd.log"))) {
		var event struct {
			Message string `json:"message"`
			Status  int    `json:"status"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		switch event.Message {
		case "session":
			statuses[event.Status]++
		case "connection refused":
			turnedAway++
		}
	}
	t.Logf("%d nodes, the last one done after %s; commands by status: %v; at least %d connections turned away", nodes, longest.Round(time.Second), statuses, turnedAway)
	for status := range statuses {
		if status != 0 && status != 75 {
			t.Errorf("%d commands ended with status %d", statuses[status], status)
		}
	}
	if statuses[0] < 2*nodes {
		t.Errorf("%d commands were done, want two for each node", statuses[0])
	}
}
