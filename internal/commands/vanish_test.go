package commands

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// vanishing is one client that goes away without a word at some point.
type vanishing struct {
	conn    *net.TCPConn
	client  *ssh.Client
	session *ssh.Session
	stdin   io.WriteCloser
	stdout  io.Reader
}

// stages are the points of a conversation, in order.
var stages = []struct {
	name  string
	holds bool // the certificate may have been issued by then
	do    func(v *vanishing, key ssh.Signer, name, csr string) error
}{
	{"connected", false, func(*vanishing, ssh.Signer, string, string) error { return nil }},
	{"in the key exchange", false, func(v *vanishing, _ ssh.Signer, _, _ string) error {
		_, err := fmt.Fprintf(v.conn, "SSH-2.0-x\r\n\x00\x00\x01")
		return err
	}},
	{"logged in", false, func(v *vanishing, key ssh.Signer, _, _ string) error {
		conn, channels, requests, err := ssh.NewClientConn(v.conn, "signerd", &ssh.ClientConfig{
			User: "signer", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err == nil {
			v.client = ssh.NewClient(conn, channels, requests)
		}
		return err
	}},
	{"session opened", false, func(v *vanishing, _ ssh.Signer, _, _ string) (err error) {
		if v.session, err = v.client.NewSession(); err != nil {
			return err
		}
		if v.stdin, err = v.session.StdinPipe(); err != nil {
			return err
		}
		v.stdout, err = v.session.StdoutPipe()
		return err
	}},
	{"command sent", false, func(v *vanishing, _ ssh.Signer, name, _ string) error { return v.session.Start(name) }},
	{"half of the request sent", false, func(v *vanishing, _ ssh.Signer, _, csr string) error {
		_, err := io.WriteString(v.stdin, csr[:len(csr)/2])
		return err
	}},
	{"all of the request sent, but its end", false, func(v *vanishing, _ ssh.Signer, _, csr string) error {
		_, err := io.WriteString(v.stdin, csr[len(csr)/2:])
		return err
	}},
	{"request ended", true, func(v *vanishing, _ ssh.Signer, _, _ string) error { return v.stdin.Close() }},
	{"answer begun", true, func(v *vanishing, _ ssh.Signer, _, _ string) error {
		_, err := v.stdout.Read(make([]byte, 1))
		return err
	}},
}

// A client that vanishes, at any point and with FIN or RST, leaves nothing
// behind: no goroutine, no file, and no hold on a name that it had not asked for
// to the end.
func TestVanishingClients(t *testing.T) {
	key := newKey(t)
	b := newBench(t, line(`permit="get-*,kubemaster-*"`, key))
	csr := request(newCertKey())
	b.ask(key, "kubemaster-first", csr) // what is made once, such as the day's file, is made now
	goroutines, files := settled(t)
	rounds := 2
	if os.Getenv("SIGNERD_LONG") != "" {
		rounds = 25
	}
	number := 0
	for last, stage := range stages {
		for range rounds {
			for _, reset := range []bool{false, true} {
				number++
				name := fmt.Sprintf("kubemaster-%d", number)
				vanishAt(t, b, last, reset, key, name, csr)
				if !stage.holds && b.desk.signer.Ledger().Hold(name) != nil {
					t.Errorf("%s: a client that vanished holds %s", stage.name, name)
				}
			}
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > files {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before; %d files, %d before\n%s", runtime.NumGoroutine(), goroutines,
				openFiles(t), files, stacks[:runtime.Stack(stacks, true)])
		}
		<-time.After(20 * time.Millisecond)
	}
	if a := b.ask(key, "kubemaster-next", csr); a.status != 0 {
		t.Errorf("the next client: %+v", a)
	}
}

func vanishAt(t *testing.T, b *bench, last int, reset bool, key ssh.Signer, name, csr string) {
	t.Helper()
	address, err := net.ResolveTCPAddr("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	v := &vanishing{}
	if v.conn, err = net.DialTCP("tcp", nil, address); err != nil {
		t.Fatal(err)
	}
	for i := 0; i <= last; i++ {
		if stages[i].name == "in the key exchange" && i < last {
			continue // it leaves a connection that cannot log in
		}
		if err := stages[i].do(v, key, name, csr); err != nil {
			t.Fatalf("%s: %v", stages[i].name, err)
		}
	}
	if reset {
		_ = v.conn.SetLinger(0)
	}
	_ = v.conn.Close()
	if v.client != nil {
		_ = v.client.Wait()
	}
}

// settled gives the numbers of goroutines and files once they stay the same.
func settled(t *testing.T) (goroutines, files int) {
	t.Helper()
	for same := 0; same < 20; same++ {
		if g, f := runtime.NumGoroutine(), openFiles(t); g != goroutines || f != files {
			goroutines, files, same = g, f, 0
		}
		<-time.After(5 * time.Millisecond)
	}
	return goroutines, files
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
