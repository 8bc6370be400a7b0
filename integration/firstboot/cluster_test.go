package firstboot

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/integration/load"
)

// One machine becomes a cluster with one command, two more join with one each
// while clients write, and all of it is still there after a reboot and a power
// cut of everything at once.
func TestCluster(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Bare)
	// A person at the terminal is asked who can open the backup.
	out := w.On(t, "h1", "sh", "-c", "ssh-keygen -y -f /root/.ssh/id_ed25519 | script -qec '"+fleet.Setup+" init --cluster="+cluster+"' /dev/null")
	for _, want := range []string{"etcd-h1 is a member of the cluster prod-a", "--ca-fingerprint=", "/etc/etcd/pki/ca.key", "Who can open the backup", "/root/signerd-prod-a.age", "/root/setup has removed itself"} {
		if !strings.Contains(out, want) {
			t.Errorf("init does not say %q:\n%s", want, out)
		}
	}
	config, _ := w.Client(t, "kubemaster-load")
	writes, err := load.Start([]string{"https://" + w.Bed.Address(11) + ":2379"}, config, 100)
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= 3; n++ {
		name := fmt.Sprintf("h%d", n)
		w.Machine(t, name, 10+n, w.Bare)
		args, enough := w.Join(t), w.capture(t, name)
		began := time.Now()
		w.On(t, name, args...)
		t.Logf("%s joined in %s", name, time.Since(began).Round(time.Millisecond))
		w.unseen(t, name, enough())
	}
	report, err := writes.Stop()
	t.Logf("while 1 became 2 became 3: %s", report)
	if err != nil || report.FirstFailed > 0 || report.Lost > 0 {
		t.Errorf("writes failed while members joined: %s, %v", report, err)
	}
	w.wellAfter(t, "the joins")
	w.onlyAt(t, "h2", "h1")
	w.onlyAt(t, "h3", "h1")

	names := []string{"h1", "h2", "h3"}
	for _, name := range names {
		w.On(t, name, "systemctl", "reboot", "--no-block")
	}
	for _, name := range names {
		fleet.Eventually(t, time.Minute, name+" reboots", func() error { return w.Bed.Boot(name) })
	}
	w.wellAfter(t, "a reboot of all")
	for _, name := range names {
		if err := w.Bed.PowerOff(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		go func() { _ = w.Bed.Boot(name) }() // alone it does not come up: it waits for the others
	}
	w.wellAfter(t, "a power cut of all")

	for _, name := range names {
		for _, again := range []string{"init", "join --signer-ip=" + w.Bed.Address(11)} {
			args := append([]string{"/usr/lib/signerd-first-boot/first-boot.sh"}, strings.Fields(again)...)
			if out, err := w.Bed.Exec(name, args...); lab.ExitCode(err) != 73 || !strings.Contains(err.Error(), "is a member already; nothing was changed") {
				t.Errorf("%s: a second %s: %v\n%s", name, again, err, out)
			}
		}
	}
	w.wellAfter(t, "more commands")
}

// wellAfter makes sure of the whole cluster of three, as its users see it.
func (w *world) wellAfter(t *testing.T, what string) {
	t.Helper()
	var urls []string
	for n := 1; n <= 3; n++ {
		urls = append(urls, fmt.Sprintf("https://%s:2379", w.Bed.Address(10+n)))
	}
	for _, name := range []string{"h1", "h2", "h3"} {
		fleet.Eventually(t, time.Minute, name+" is up", func() error {
			_, err := w.Bed.Exec(name, "true")
			return err
		})
	}
	fleet.Eventually(t, 2*time.Minute, "after "+what+" all members vote", func() error {
		peers, err := w.SSH(t, "", "get-peers")
		if got := strings.Fields(peers); err == nil && !slices.Equal(got, urls) {
			err = fmt.Errorf("get-peers is %v, want %v", got, urls)
		}
		return err
	})
	config, dir := w.Client(t, "kubemaster-"+strings.ReplaceAll(strings.TrimPrefix(what, "a "), " ", "-"))
	for _, url := range urls {
		args := []string{"--endpoints=" + url, "--cacert=" + filepath.Join(dir, "ca.crt"), "--cert=" + filepath.Join(dir, "client.crt"), "--key=" + filepath.Join(dir, "client.key")}
		fleet.Eventually(t, 30*time.Second, "a write at "+url, func() error {
			return ran(exec.Command(ctlHere(t), append(args, "put", "after", what)...))
		})
	}
	for n := 1; n <= 3; n++ {
		w.doors(t, w.Bed.Address(10+n), config)
	}
	for _, name := range []string{"h1", "h2", "h3"} {
		w.secret(t, name)
		if out, err := w.Bed.Exec(name, "ls", "-d", "/root/setup"); err == nil {
			t.Errorf("%s still has its setup folder: %s", name, out)
		}
		// It renews itself from now on, and nothing is wrong with it.
		w.On(t, name, "systemctl", "start", "signerd-sync.service")
		fleet.Eventually(t, 10*time.Second, name+": the timer of signerd sync elapses again", func() error { // not while it runs
			next, err := w.Bed.Exec(name, "systemctl", "show", "--value", "-p", "NextElapseUSecMonotonic", "signerd-sync.timer")
			if err == nil && (next == "infinity\n" || next == "\n") {
				err = errors.New("it does not")
			}
			return err
		})
		if out, err := w.Bed.Exec(name, "signerd", "status"); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out := w.On(t, "h1", "sh", "-c", "signerd check && signerd ledger verify"); !strings.Contains(out, "ok: cluster prod-a") {
		t.Errorf("signerd check: %s", out)
	}
}

// doors makes sure that a member's ports are open to whom they are for.
func (w *world) doors(t *testing.T, address string, client *tls.Config) {
	t.Helper()
	nobody := &tls.Config{RootCAs: client.RootCAs}
	always := client.Clone()
	always.Certificates = nil
	always.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client.Certificates[0], nil }
	for _, door := range []struct {
		what, url string
		config    *tls.Config
		open      bool
	}{
		{"a client on 2379", "https://" + address + ":2379/version", always, true},
		{"nobody on 2379", "https://" + address + ":2379/version", nobody, false},
		{"plain HTTP on 2379", "http://" + address + ":2379/version", nil, false},
		{"a client on 2380", "https://" + address + ":2380/members", always, false},
		{"nobody on 2380", "https://" + address + ":2380/members", nobody, false},
	} {
		c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: door.config, DisableKeepAlives: true}}
		response, err := c.Get(door.url)
		open := err == nil && response.StatusCode == http.StatusOK
		if err == nil {
			_ = response.Body.Close()
		}
		if open != door.open {
			t.Errorf("%s at %s: open %v, want %v; %v", door.what, address, open, door.open, err)
		}
	}
}
