package lab

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// Cluster is the id of every lab's cluster.
const Cluster = "prod-a"

// Lab is a signer and its cluster in one directory, on addresses of its own in
// 127.0.0.0/8.
type Lab struct {
	Dir     string
	Network string // the first three numbers of its addresses
	Etcd    Etcd
	Binary  string // signerd

	Signer  *Process
	Members map[string]*Member
}

// Member is one etcd of a lab.
type Member struct {
	Name, Address, Dir string
	Process            *Process
}

// New makes a lab in dir: a CA, a host key, an operator's SSH key and the
// configuration. Nothing runs yet. extra is added to signerd.yaml.
func New(dir, network string, etcd Etcd, binary, extra string) (*Lab, error) {
	l := &Lab{Dir: dir, Network: network, Etcd: etcd, Binary: binary, Members: map[string]*Member{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"host_key", "operator"} {
		if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", l.Path(name)); err != nil {
			return nil, err
		}
	}
	if err := l.Authorize(`permit="get-*,kubemaster-*,etcd-*,release *,remove *,rotate *,rotate prepare --from"`, "operator"); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("cluster: %s\nlisten: %s:2222\nhost_key: host_key\nauthorized_keys: authorized_keys\n"+
		"authority: authority\nledger: ledger\netcd: [https://%s:2379]\n%s", Cluster, l.Address(1), l.Address(11), extra)
	if err := os.WriteFile(l.Path("signerd.yaml"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	if err := l.writeSSHConfig(); err != nil {
		return nil, err
	}
	_, err := l.Run("", binary, "ca", "create", "--config", l.Path("signerd.yaml"))
	return l, err
}

// writeSSHConfig lets "ssh -F ssh_config signer@leader" reach the signer with
// the operator's key and the pinned host key; as signer@keyless it is reached
// with no key but those of -i.
func (l *Lab) writeSSHConfig() error {
	host, err := os.ReadFile(l.Path("host_key.pub"))
	if err != nil {
		return err
	}
	known := fmt.Sprintf("[%s]:2222 %s", l.Address(1), host)
	if err := os.WriteFile(l.Path("known_hosts"), []byte(known), 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(`Host leader keyless
    HostName %s
    Port 2222
    UserKnownHostsFile %s
    StrictHostKeyChecking yes
    IdentitiesOnly yes
    BatchMode yes
    LogLevel ERROR
Host leader
    IdentityFile %s
`, l.Address(1), l.Path("known_hosts"), l.Path("operator"))
	return os.WriteFile(l.Path("ssh_config"), []byte(config), 0o644)
}

// Path gives a file's path in the lab.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// Address gives the lab's address with a last number: 1 is the signer, 11 and
// on are members.
func (l *Lab) Address(n int) string { return fmt.Sprintf("%s.%d", l.Network, n) }

// Authorize adds a line to authorized_keys: options and the key in NAME.pub.
func (l *Lab) Authorize(options, name string) error {
	key, err := os.ReadFile(l.Path(name + ".pub"))
	if err != nil {
		return err
	}
	file, err := os.OpenFile(l.Path("authorized_keys"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s %s", options, key)
	return errors.Join(err, file.Close())
}

// Run runs a program in the lab's directory with stdin and gives its stdout.
// The error has its stderr, and wraps *exec.ExitError.
func (l *Lab) Run(stdin string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = l.Dir
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// SSH asks the signer with the stock client.
func (l *Lab) SSH(stdin string, command ...string) (string, error) {
	return l.SSHWith(stdin, append([]string{"signer@leader"}, command...)...)
}

// SSHWith runs the stock client with options, a destination of the lab's
// ssh_config, and a command.
func (l *Lab) SSHWith(stdin string, args ...string) (string, error) {
	return l.Run(stdin, "ssh", append([]string{"-F", l.Path("ssh_config")}, args...)...)
}

// Ctl runs etcdctl against the first member with a certificate: CERT.crt and
// CERT.key in the lab, ca.crt beside them.
func (l *Lab) Ctl(cert string, args ...string) (string, error) {
	return l.Run("", l.Etcd.Ctl, append([]string{"--endpoints=https://" + l.Address(11) + ":2379", "--command-timeout=5s",
		"--cacert=" + l.Path("ca.crt"), "--cert=" + l.Path(cert+".crt"), "--key=" + l.Path(cert+".key")}, args...)...)
}

// StartSigner starts signerd and waits until it accepts connections.
func (l *Lab) StartSigner() error {
	log := l.Path("signerd.log")
	before, _ := os.ReadFile(log)
	listens := l.logs("listening")
	process, err := Start(log, nil, l.Binary, "serve", "--config", l.Path("signerd.yaml"))
	if err != nil {
		return err
	}
	l.Signer = process
	if err := process.waitFor("signerd listens", 20*time.Second, listens); err != nil {
		now, _ := os.ReadFile(log)
		return fmt.Errorf("%w\n%s", err, now[len(before):])
	}
	return nil
}

// Reload has the signer read authorized_keys again, and waits until it has.
func (l *Lab) Reload() error {
	done := l.logs("authorized_keys was read again")
	if err := l.Signer.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return l.Signer.waitFor("authorized_keys is read again", 10*time.Second, done)
}

// logs gives a function that says whether the signer has logged a message since.
func (l *Lab) logs(message string) func() bool {
	log := l.Path("signerd.log")
	before, _ := os.ReadFile(log) // none at the first start
	return func() bool {
		now, _ := os.ReadFile(log)
		return bytes.Contains(now[len(before):], []byte(`"message":"`+message+`"`))
	}
}

// FoundMember makes the first member's key and certificate as first-boot init
// does, with the signer's own code while the daemon is stopped.
func (l *Lab) FoundMember() (*Member, error) {
	m, keyDER, err := l.newMember("etcd-1", l.Address(11))
	if err != nil {
		return nil, err
	}
	address, err := wire.ParseAddress(m.Address)
	if err != nil {
		return nil, err
	}
	subject, err := signer.MemberSubject(m.Name, []wire.Address{address})
	if err != nil {
		return nil, err
	}
	public, err := signer.PublicKeyOf(keyDER.Public())
	if err != nil {
		return nil, err
	}
	identity := signer.DefaultIdentity(Cluster)
	c, err := config.Load(l.Path("signerd.yaml"))
	if err != nil {
		return nil, err
	}
	if c.Identity != "" {
		if identity, err = signer.ParseIdentity(c.Identity); err != nil {
			return nil, err
		}
	}
	authority, err := signer.LoadAuthority(l.Path("authority"), time.Now())
	if err != nil {
		return nil, err
	}
	issuer, _, err := signer.Open(signer.Parts{Cluster: Cluster, Identity: identity, Authority: authority, Ledger: l.Path("ledger")}, time.Now())
	if err != nil {
		return nil, err
	}
	issued, err := issuer.Issue(context.Background(), time.Now(), signer.Order{Subject: subject, Key: public})
	if err := errors.Join(err, issuer.Close()); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(m.Dir, "member.crt"), issued.PEM, 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(l.Path("ca.crt"), authority.Bundle(), 0o644); err != nil {
		return nil, err
	}
	return m, nil
}

// JoinMember asks the running signer for a member's certificate, from the
// member's address, as first-boot join does. The member is a learner then.
func (l *Lab) JoinMember(number int) (*Member, error) {
	m, _, err := l.newMember(fmt.Sprintf("etcd-%d", number), l.Address(10+number))
	if err != nil {
		return nil, err
	}
	csr, err := l.Run("", "openssl", "req", "-new", "-key", filepath.Join(m.Dir, "member.key"), "-subj", "/CN="+m.Name)
	if err != nil {
		return nil, err
	}
	chain, err := l.SSHWith(csr, "-b", m.Address, "signer@leader", m.Name+"="+m.Address)
	if err != nil {
		return nil, err
	}
	return m, os.WriteFile(filepath.Join(m.Dir, "member.crt"), []byte(chain), 0o644)
}

func (l *Lab) newMember(name, address string) (*Member, *ecdsa.PrivateKey, error) {
	m := &Member{Name: name, Address: address, Dir: l.Path(name)}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(m.Dir, "member.key"), block, 0o600); err != nil {
		return nil, nil, err
	}
	l.Members[name] = m
	return m, key, nil
}

// StartEtcd starts a member with the settings that first-boot writes, and waits
// until it serves its clients. topology is its --initial-cluster; empty for the
// founder.
func (l *Lab) StartEtcd(m *Member, topology string) error {
	state := "existing"
	if topology == "" {
		state, topology = "new", m.Name+"=https://"+m.Address+":2380"
	}
	file := func(name string) string { return filepath.Join(m.Dir, name) }
	process, err := Start(l.Path(m.Name+".log"), []string{
		"ETCD_NAME=" + m.Name, "ETCD_DATA_DIR=" + file("data"), "ETCD_LOG_LEVEL=error",
		"ETCD_LISTEN_CLIENT_URLS=https://" + m.Address + ":2379", "ETCD_ADVERTISE_CLIENT_URLS=https://" + m.Address + ":2379",
		"ETCD_LISTEN_PEER_URLS=https://" + m.Address + ":2380", "ETCD_INITIAL_ADVERTISE_PEER_URLS=https://" + m.Address + ":2380",
		"ETCD_INITIAL_CLUSTER=" + topology, "ETCD_INITIAL_CLUSTER_STATE=" + state, "ETCD_INITIAL_CLUSTER_TOKEN=" + Cluster,
		"ETCD_LISTEN_METRICS_URLS=http://" + m.Address + ":2381",
		"ETCD_CERT_FILE=" + file("member.crt"), "ETCD_KEY_FILE=" + file("member.key"), "ETCD_TRUSTED_CA_FILE=" + l.Path("ca.crt"), "ETCD_CLIENT_CERT_AUTH=true",
		"ETCD_PEER_CERT_FILE=" + file("member.crt"), "ETCD_PEER_KEY_FILE=" + file("member.key"), "ETCD_PEER_TRUSTED_CA_FILE=" + l.Path("ca.crt"), "ETCD_PEER_CLIENT_CERT_AUTH=true",
		"ETCD_PEER_CERT_ALLOWED_HOSTNAME=" + signer.PeerName(Cluster),
	}, l.Etcd.Server)
	if err != nil {
		return err
	}
	m.Process = process
	return process.waitFor(m.Name+" is ready", time.Minute, func() bool {
		client := http.Client{Timeout: time.Second}
		response, err := client.Get("http://" + m.Address + ":2381/readyz?exclude=non_learner")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// NewRequest makes a P-256 key, NAME.key, and a request for it, NAME.csr, with
// openssl, as the runbook does, and gives the request.
func (l *Lab) NewRequest(name string) (string, error) {
	if _, err := l.Run("", "openssl", "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name+".key"); err != nil {
		return "", err
	}
	if err := os.Chmod(l.Path(name+".key"), 0o600); err != nil {
		return "", err
	}
	_, err := l.Run("", "openssl", "req", "-new", "-key", name+".key", "-subj", "/CN="+name, "-out", name+".csr")
	if err != nil {
		return "", err
	}
	csr, err := os.ReadFile(l.Path(name + ".csr"))
	return string(csr), err
}

// Close ends everything that runs.
func (l *Lab) Close() {
	for _, m := range l.Members {
		if m.Process != nil {
			m.Process.Kill()
		}
	}
	if l.Signer != nil {
		l.Signer.Kill()
	}
}
