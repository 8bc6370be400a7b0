package firstboot

import (
	"strings"
	"testing"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
)

// Members are reached by IPv6 addresses, and by host names.
func TestNames(t *testing.T) {
	w := here(t)
	t.Run("IPv6", func(t *testing.T) {
		w.Machine(t, "h1", 11, w.Bare)
		if out, err := w.Bed.Exec("h1", "sh", "-c", "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0 && ip address add fd00::11/128 dev lo"); err != nil {
			t.Fatal(err, out)
		}
		w.On(t, "h1", fleet.Setup, "init", "--cluster="+cluster, "--address=fd00::11")
		ask := "ssh -o StrictHostKeyChecking=no -o BatchMode=yes signer@fd00::11 "
		if out := w.On(t, "h1", "sh", "-c", ask+"get-peers && "+ask+"get-topology"); out != "https://[fd00::11]:2379\netcd-h1=https://[fd00::11]:2380\n" {
			t.Errorf("the peers and the topology are %q", out)
		}
		w.On(t, "h1", "etcdctl", "--endpoints=https://[fd00::11]:2379", "--cacert=/etc/etcd/pki/ca.crt", "--cert=/etc/etcd/pki/member.crt",
			"--key=/etc/etcd/pki/member.key", "put", "over", "IPv6")
	})
	t.Run("host names", func(t *testing.T) {
		w.Machine(t, "h1", 11, w.Bare)
		w.Machine(t, "h2", 12, w.Bare)
		for _, host := range []string{"h1", "h2"} {
			w.On(t, host, "sh", "-c", "printf '%s db1.test\\n%s db2.test\\n' "+w.Bed.Address(11)+" "+w.Bed.Address(12)+" >> /etc/hosts")
		}
		w.On(t, "h1", fleet.Setup, "init", "--cluster="+cluster, "--address=db1.test")
		w.On(t, "h2", "sh", "-c", "ssh-keyscan -t ed25519 db1.test > /root/.ssh/known_hosts") // as good as the fingerprint
		args := []string{fleet.Setup, "join", "--signer-ip", "db1.test:22", "--address=db2.test"}
		if out, err := w.Bed.Exec("h2", args...); lab.ExitCode(err) != 77 || !strings.Contains(err.Error(), "each address must be the source's, or stand in the key's permit") {
			t.Errorf("a host name that no permit has: %v\n%s", err, out)
		}
		w.On(t, "h1", "sh", "-c", `sed -i 's/permit="get-\*,/permit="get-*,etcd-h2=db2.test,/' /etc/signerd/authorized_keys && signerd check && systemctl reload signerd`)
		w.On(t, "h2", args...)
		if out, err := w.SSH(t, "", "get-peers"); err != nil || out != "https://db1.test:2379\nhttps://db2.test:2379\n" {
			t.Errorf("the peers are %q, %v", out, err)
		}
		if out, err := w.Ctl("h2", "put", "by", "name"); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
}

// Without a pin a person at the terminal is asked, as ssh asks.
func TestQuestion(t *testing.T) {
	w := here(t)
	w.Machine(t, "h1", 11, w.Signer)
	w.Machine(t, "h2", 12, w.Bare)
	join := func(answer string) (string, error) {
		stays := map[string]string{"yes": "12", "no": "3"}[answer] // at the terminal, until all is done
		return w.Bed.Exec("h2", "sh", "-c", "(sleep 1; echo "+answer+"; sleep "+stays+") | timeout 60 script -qec '"+fleet.Setup+" join --signer-ip="+w.Bed.Address(11)+"' /dev/null")
	}
	if out, err := join("no"); lab.ExitCode(err) != 77 || !strings.Contains(out, w.Fingerprint(t)) || !strings.Contains(out, "was not accepted") {
		t.Errorf("no: %v\n%s", err, out)
	}
	// Nobody is asked in vain.
	w.On(t, "h2", "mv", "/usr/local/bin/etcd", "/usr/local/bin/etcd.new")
	if out, err := join("no"); lab.ExitCode(err) != 78 || strings.Contains(out, "Go on (yes/no)?") || !strings.Contains(out, "etcd is missing") || !strings.Contains(out, "when all else is well") {
		t.Errorf("with etcd missing: %v\n%s", err, out)
	}
	w.On(t, "h2", "mv", "/usr/local/bin/etcd.new", "/usr/local/bin/etcd")
	w.On(t, "h2", "systemd-run", "-q", "--unit=taker", "perl", "-MIO::Socket::INET", "-e", "my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 2380) or die; sleep 600")
	if out, err := join("no"); lab.ExitCode(err) != 78 || strings.Contains(out, "Go on (yes/no)?") || !strings.Contains(out, "address already in use") {
		t.Errorf("with a port taken: %v\n%s", err, out)
	}
	w.On(t, "h2", "systemctl", "stop", "taker")
	if out, err := join("yes"); err != nil || !strings.Contains(out, "etcd-h2 is a member") {
		t.Errorf("yes: %v\n%s", err, out)
	}
	w.On(t, "h2", "ssh-keygen", "-F", w.Bed.Address(11), "-f", "/etc/signerd/known_hosts")
}
