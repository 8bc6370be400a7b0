package bootstrap

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// InitOptions are what a person may say about the first machine. What is empty
// is found out, or was said to an earlier run.
type InitOptions struct {
	Cluster   string   // its id; etcd by default
	Name      string   // of the member; etcd-HOSTNAME by default
	Addresses []string // the first one is what the others dial; by default the way out
	Listen    string   // where the signer listens; :22 by default
	Authorize string   // the signer's authorized_keys; by default made of root's
	CAKey     string   // p256, the default, or p384

	BackupRecipients []string // who can open a backup of the signer; empty: Ask; NoBackup alone: nobody
	// Ask asks a person for one recipient; an empty answer is NoBackup. If Ask is nil nobody
	// is there, and there is no backup.
	Ask func(ctx context.Context) (string, error)

	DryRun bool // look and list the steps, and change nothing
}

const (
	defaultCluster = "etcd"
	defaultListen  = ":22"
	defaultCAKey   = "p256"
)

// Init makes this machine the first member of a cluster, with its CA and its
// signer. It gives nil without an error after a dry run. The error wraps
// ErrPreflight (with ErrUsage for an option), ErrDone, ErrBusy, or is what stopped a step;
// the next Init goes on there.
func Init(ctx context.Context, o InitOptions, observe Observer) (*Summary, error) {
	b, release, err := begin("init", observe)
	if err != nil {
		return nil, err
	}
	defer release() //nolint:errcheck // the process ends
	if err := b.planInit(ctx, o); err != nil {
		return nil, err
	}
	steps := b.initSteps()
	if o.DryRun {
		b.pretend(steps)
		return nil, nil
	}
	if err := b.open(); err != nil {
		return nil, err
	}
	if err := b.run(ctx, steps); err != nil {
		return nil, err
	}
	return ReadReceipt()
}

// planInit decides what is to be done and says everything that stands in the
// way.
func (b *boot) planInit(ctx context.Context, o InitOptions) error {
	p := &preflight{observe: b.observe}
	state := p.machine(ctx, b.now())
	if b.journal != nil {
		p.same(b.journal.Begun, [][3]string{
			{"--cluster", o.Cluster, b.plan.Cluster}, {"--name", o.Name, b.plan.Name}, {"--listen", o.Listen, b.plan.Listen},
			{"--address", canonical(o.Addresses), wire.JoinAddresses(b.plan.Addresses)}, {"--authorize", absolute(o.Authorize), b.plan.Authorize}, {"--key", o.CAKey, b.plan.CAKey},
			b.sameRecipients(p, o.BackupRecipients),
		})
		return p.verdict()
	}
	b.found = p.untouched(ctx, state)
	b.plan.Cluster, b.plan.Listen, b.plan.CAKey = cmp.Or(o.Cluster, defaultCluster), cmp.Or(o.Listen, defaultListen), cmp.Or(o.CAKey, defaultCAKey)
	b.plan.Authorize = absolute(o.Authorize)
	if _, err := wire.ParseClusterID(b.plan.Cluster); err != nil {
		p.misused("--cluster: %w", err)
	}
	if _, ok := signer.CAKeys[b.plan.CAKey]; !ok {
		p.misused("--key is p256 or p384, not %q", b.plan.CAKey)
	}
	b.plan.Name, b.plan.Addresses, b.plan.Bind = p.names(ctx, o.Name, o.Addresses, "")
	_, err := authorizedKeys(b.plan.Authorize)
	p.check(err)
	p.absent(b.plan.dataDir(), "it is where etcd's data is to be; move it away if it is of no use")
	if len(b.plan.Addresses) > 0 {
		_, err := config.Parse(configPath, b.plan.signerConfig())
		p.check(err)
	}
	p.absent(filepath.Join(authorityDir, "state.json"), "this machine has a CA, and a CA is never replaced: signerd check says of which cluster; move it away if nobody trusts it")
	p.absent(configPath, "this machine has a signer: signerd check says of which cluster; move it away if it is of no use")
	p.absent(keysPath, "move it away, and give it as --authorize FILE if it is what the signer is to have")
	if state != nil && !state.Up() {
		p.ports(ctx, b.plan.etcdAddresses()...)
	}
	if err := canListen(ctx, b.plan.Listen); err != nil {
		p.problem("the signer cannot listen on %s: %w: if that is sshd, move it (Port in /etc/ssh/sshd_config) or give --listen :2222 or another port", b.plan.Listen, err)
	}
	if err := b.planBackup(ctx, p, o); err != nil {
		return err
	}
	return p.verdict()
}

// signerConfig is signerd.yaml.
func (p *plan) signerConfig() []byte {
	return fmt.Appendf(nil, `# Written by first-boot init; signerd.yaml(5) has the keys that are not here.
cluster: %s
listen: %q
host_key: %s
authorized_keys: %s
authority: %s
ledger: %s
etcd: [%q]
`, p.Cluster, p.Listen, hostKeyPath, keysPath, authorityDir, ledgerDir, p.clientURL())
}

func (b *boot) initSteps() []step {
	steps := []step{
		{"clear", "clear the distribution's etcd out of the way", b.clearEtcd},
		{"ca", "make the CA", b.makeCA},
		{"key", "make the member's key", func(context.Context) (string, error) { return makeKey() }},
		{"certificate", "sign the member's certificate", b.signFirst},
		{"etcd", "start etcd", b.startFirst},
		{"prove", "write, read, and be refused without a certificate", b.proveFirst},
		{"signer", "set up the signer", b.configureSigner},
		{"serve", "start the signer", b.startSigner},
		{"ask", "ask the signer over SSH", b.askSigner},
		{"renewal", "have the certificate renewed from now on", b.keepFirstValid},
	}
	if len(b.plan.BackupRecipients) > 0 {
		steps = append(steps, step{"backup", "back up the signer", b.backUp})
	}
	return append(steps, step{"receipt", "write the receipt", b.finishInit})
}

func (b *boot) makeCA(context.Context) (string, error) {
	g, err := signer.CreateAuthority(authorityDir, b.plan.Cluster, b.plan.CAKey, b.now())
	if errors.Is(err, fs.ErrExist) {
		// An earlier run made it, and was ended before it could say so.
		authority, err := signer.LoadAuthority(authorityDir, b.now())
		if err != nil {
			return "", err
		}
		g = authority.Active()
	} else if err != nil {
		return "", err
	}
	return g.Fingerprint(), nil
}

// withSigner lends the signer while the daemon does not run.
func (b *boot) withSigner(use func(*signer.Signer) error) (err error) {
	authority, err := signer.LoadAuthority(authorityDir, b.now())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.HandOver(authorityDir), durable.HandOver(ledgerDir)) }()
	s, _, err := signer.Open(signer.Parts{
		Cluster: b.plan.Cluster, Identity: signer.DefaultIdentity(b.plan.Cluster), Authority: authority, Ledger: ledgerDir,
	}, b.now())
	if err != nil {
		return err
	}
	return errors.Join(use(s), s.Close())
}

func (b *boot) signFirst(ctx context.Context) (string, error) {
	if b.plan.hasCertificate(b.now()) {
		return "it is there", nil
	}
	key, err := own.LoadKey()
	if err != nil {
		return "", err
	}
	subject, err := signer.MemberSubject(b.plan.Name, b.plan.Addresses)
	if err != nil {
		return "", err
	}
	public, err := signer.PublicKeyOf(key.Public())
	if err != nil {
		return "", err
	}
	err = b.withSigner(func(s *signer.Signer) error {
		issued, err := s.Issue(ctx, b.now(), signer.Order{Subject: subject, Key: public})
		if err != nil {
			return err
		}
		if err := errors.Join(durable.Replace(own.Trust, s.Authority().Bundle(), 0o644),
			durable.Symlink(filepath.Join(authorityDir, "active.key"), caKeyLink)); err != nil {
			return err
		}
		return durable.Replace(own.Certificate, issued.PEM, 0o644) // last: it says that all three are there
	})
	return own.Certificate, err
}

// founders is the topology of a cluster of this member alone.
func (b *boot) founders() string { return b.plan.Name + "=" + peers.PeerURL(b.plan.address()) }

// startTimeout bounds the wait for an etcd or a signer that starts: an etcd that
// cannot publish itself at once tries again after 7 s.
const startTimeout = time.Minute

func (b *boot) startFirst(ctx context.Context) (string, error) {
	if _, err := b.clearEtcd(ctx); err != nil {
		return "", err
	}
	// A founder that lost its power between its first two writes never elects
	// itself. Until this step is done nobody has a certificate to write with, so
	// that what an earlier run began is worth nothing.
	if err := os.RemoveAll(b.plan.dataDir()); err != nil {
		return "", err
	}
	if err := b.configureEtcd(ctx, b.founders(), "new"); err != nil {
		return "", err
	}
	if err := startEtcd(ctx); err != nil {
		return "", err
	}
	return "", b.awaitEtcd(ctx, startTimeout, listMembers)
}

// awaitEtcd connects to the etcd on this machine and tries until it may, for as
// long as etcd runs.
func (b *boot) awaitEtcd(ctx context.Context, atMost time.Duration, try func(context.Context, *peers.Cluster) error) error {
	credentials, err := own.Credentials()
	if err != nil {
		return err
	}
	cluster, err := peers.Connect([]string{member.LocalEndpoint}, credentials)
	if err != nil {
		return err
	}
	defer cluster.Close() //nolint:errcheck // nothing is left to do on it
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	return b.eventually(ctx, 200*time.Millisecond, func(ctx context.Context) (bool, error) {
		if _, err := unit.Alive(ctx, member.EtcdUnit); err != nil {
			return true, err
		}
		err := try(ctx, cluster)
		return err == nil, err
	})
}

func (b *boot) proveFirst(ctx context.Context) (string, error) {
	err := b.awaitEtcd(ctx, startTimeout, func(ctx context.Context, c *peers.Cluster) error { return c.Prove(ctx) })
	if err != nil {
		return "", err
	}
	// With "new" a member that lost its data would found a second cluster.
	if err := b.configureEtcd(ctx, b.founders(), "existing"); err != nil {
		return "", err
	}
	ours, err := own.Credentials()
	if err != nil {
		return "", err
	}
	return "2379 and 2380", b.withSigner(func(s *signer.Signer) error {
		client := peers.Credentials{Roots: ours.Roots, Certificate: s.Self(b.now).Certificate}
		return b.plan.checkRefusals(ctx, ours, client)
	})
}

func (b *boot) configureSigner(context.Context) (string, error) {
	keys, err := authorizedKeys(b.plan.Authorize)
	if err != nil {
		return "", err
	}
	owner, err := ownerOf("signerd")
	if err != nil {
		return "", err
	}
	if err := makeDir(configDir); err != nil {
		return "", err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "signerd of "+b.plan.Cluster)
	if err != nil {
		return "", err
	}
	if err := durable.CreateFor(owner, hostKeyPath, pem.EncodeToMemory(block), 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	hostKey, err := b.hostKey()
	if err != nil {
		return "", err
	}
	return ssh.FingerprintSHA256(hostKey), errors.Join(
		durable.Replace(hostKeyPath+".pub", ssh.MarshalAuthorizedKey(hostKey), 0o644),
		durable.Replace(keysPath, keys, 0o644),
		durable.Replace(configPath, b.plan.signerConfig(), 0o644))
}

// hostKey gives the signer's public host key.
func (b *boot) hostKey() (ssh.PublicKey, error) {
	key, err := sshclient.LoadKey(hostKeyPath)
	if err != nil {
		return nil, err
	}
	return key.PublicKey(), nil
}

func (b *boot) startSigner(ctx context.Context) (string, error) {
	if err := unit.Launch(ctx, member.SignerUnit); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return b.plan.Listen, b.eventually(ctx, 50*time.Millisecond, func(ctx context.Context) (bool, error) {
		s, err := unit.Alive(ctx, member.SignerUnit)
		return err != nil || s.Active == "active", err
	})
}

// signerAddress is where the signer of this machine is asked, from here.
func (p *plan) signerAddress() string {
	host, port, err := net.SplitHostPort(p.Listen)
	if err != nil || wildcard(host) {
		host = p.Bind[0]
	}
	return net.JoinHostPort(host, port)
}

// wildcard says whether a listener with this host has all addresses.
func wildcard(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

// askSigner asks as the member may, with the key of its certificate.
func (b *boot) askSigner(ctx context.Context) (string, error) {
	hostKey, err := b.hostKey()
	if err != nil {
		return "", err
	}
	keys, err := own.SSHKeys()
	if err != nil {
		return "", err
	}
	client, err := sshclient.Dial(ctx, sshclient.Options{
		Address: b.plan.signerAddress(), Keys: keys, HostKey: sshclient.HostKey{Fingerprint: ssh.FingerprintSHA256(hostKey)},
	})
	if err != nil {
		return "", err
	}
	defer client.Close() //nolint:errcheck // nothing is left to ask
	bundle, _, err := client.Run(ctx, wire.Command{Verb: wire.GetCertificate}, nil)
	if err != nil {
		return "", err
	}
	if ours, err := os.ReadFile(own.Trust); err != nil || !slices.Equal(ours, bundle) {
		return "", errors.Join(err, errors.New("the signer hands out another CA than etcd trusts"))
	}
	urls, _, err := client.Run(ctx, wire.Command{Verb: wire.GetPeers}, nil)
	return strings.TrimSpace(string(urls)), err
}

func (b *boot) keepFirstValid(ctx context.Context) (string, error) {
	hostKey, err := b.hostKey()
	if err != nil {
		return "", err
	}
	address := b.plan.signerAddress()
	return member.SyncTimer, b.keepValid(ctx, address, ssh.FingerprintSHA256(hostKey), sshclient.KnownHostsLine(address, hostKey))
}

func (b *boot) finishInit(context.Context) (string, error) {
	hostKey, err := b.hostKey()
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(b.plan.Listen)
	if err != nil {
		return "", err
	}
	if wildcard(host) {
		host = b.plan.address().String()
	}
	return b.finish(net.JoinHostPort(host, port), ssh.FingerprintSHA256(hostKey))
}
