package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
)

// JoinOptions are what a person may say about one more machine. What is empty is
// found out, or was said to an earlier run.
type JoinOptions struct {
	Signer            string   // host, host:port
	SignerFingerprint string   // of its host key; empty: known_hosts, or Ask
	CAFingerprints    []string // every CA handed out must be one of these; empty: whatever the signer has
	Cluster           string   // the id that the cluster must have; empty: any
	Name              string   // of the member; etcd-HOSTNAME by default
	Addresses         []string // the first one is what the others dial; by default as the signer sees us
	Identity          string   // the private SSH key that may join; by default root's
	DryRun            bool     // look and list the steps, and change nothing

	// Ask shows a person the signer's unknown host key, and says whether it was
	// taken; nil: nobody is there.
	Ask func(ctx context.Context, host, fingerprint string) bool
}

// Join makes this machine one more member of the cluster. It gives nil without an
// error after a dry run. The error wraps ErrPreflight (with ErrUsage for an option),
// ErrDone, ErrBusy, ErrDenied,
// ErrUnreachable, or ErrUndone if it failed before the member voted and all was
// taken back; after any other the next Join goes on.
func Join(ctx context.Context, o JoinOptions, observe Observer) (*Summary, error) {
	b, release, err := begin("join", observe)
	if err != nil {
		return nil, err
	}
	defer release() //nolint:errcheck // the process ends
	j := &join{boot: b}
	resumed := b.journal != nil
	if resumed && b.journal.Undoing {
		if o.DryRun {
			b.observe(Event{Title: "take back the join that failed", State: Planned})
			return nil, nil
		}
		// The signer may have another address by now; it has the same host key.
		if address, err := wire.ParseSigner(o.Signer); err == nil {
			b.plan.Signer, b.journal.Plan.Signer = address, address
		}
		bounded, cancel := context.WithTimeout(ctx, undoTimeout)
		defer cancel()
		if err := j.undo(bounded); err != nil && !errors.Is(err, errVotes) {
			return nil, fmt.Errorf("the join that failed cannot be taken back yet: %w", err)
		}
	}
	if resumed {
		o = o.or(b.plan) // what was said then need not be said again
	}
	summary, err := j.attempt(ctx, o)
	if resumed && errors.Is(err, ErrUndone) && ctx.Err() == nil {
		// What an earlier run had begun was of no use any more.
		return j.attempt(ctx, o)
	}
	return summary, err
}

// or gives the options that are not said from a plan that an earlier run made of
// them.
func (o JoinOptions) or(p plan) JoinOptions {
	o.SignerFingerprint = cmp.Or(o.SignerFingerprint, p.SignerKey)
	o.Cluster, o.Name, o.Identity = cmp.Or(o.Cluster, p.Cluster), cmp.Or(o.Name, p.Name), cmp.Or(o.Identity, p.Identity)
	if len(o.CAFingerprints) == 0 {
		o.CAFingerprints = p.CAFingerprints
	}
	if len(o.Addresses) == 0 {
		o.Addresses = strings.Split(wire.JoinAddresses(p.Addresses), ",")
	}
	return o
}

// attempt joins, or takes everything back.
func (j *join) attempt(ctx context.Context, o JoinOptions) (*Summary, error) {
	if err := j.decide(ctx, o); err != nil {
		return nil, err
	}
	if o.DryRun {
		j.pretend(j.steps())
		return nil, nil
	}
	if err := j.open(); err != nil {
		return nil, err
	}
	if err := j.run(ctx, j.steps()); err != nil {
		return nil, j.failed(err)
	}
	return ReadReceipt()
}

// join is a boot that asks a signer.
type join struct {
	*boot
	topology []place
}

// decide plans what is to be done and says everything that stands in the way.
func (j *join) decide(ctx context.Context, o JoinOptions) error {
	p := &preflight{observe: j.observe}
	address, err := wire.ParseSigner(o.Signer)
	if err != nil {
		p.misused("--signer-ip: %w", err)
	}
	if o.SignerFingerprint != "" {
		if _, err := wire.ParseHostKey(o.SignerFingerprint); err != nil {
			p.misused("--signer-fingerprint: %w", err)
		}
	}
	if o.CAFingerprints, err = parsePins(o.CAFingerprints); err != nil {
		p.misused("--ca-fingerprint: %w", err)
	}
	misused := p.problems.ErrorOrNil() != nil
	state := p.machine(ctx, j.now())
	if j.journal != nil {
		p.same(j.journal.Begun, [][3]string{
			{"--signer-ip", address, j.plan.Signer}, {"--signer-fingerprint", o.SignerFingerprint, j.plan.SignerKey},
			{"--ca-fingerprint", strings.Join(o.CAFingerprints, ","), strings.Join(j.plan.CAFingerprints, ",")}, {"--cluster", o.Cluster, j.plan.Cluster},
			{"--name", o.Name, j.plan.Name}, {"--address", canonical(o.Addresses), wire.JoinAddresses(j.plan.Addresses)}, {"--identity", absolute(o.Identity), j.plan.Identity},
		})
		return p.verdict()
	}
	j.found = p.untouched(ctx, state)
	j.plan = plan{Command: "join", Signer: address, CAFingerprints: o.CAFingerprints, Identity: absolute(o.Identity)}
	if misused { // a pin that does not parse must not become no pin
		j.plan.Name, j.plan.Addresses, j.plan.Bind = p.names(ctx, o.Name, o.Addresses, "")
	} else {
		j.meet(ctx, p, o)
	}
	if state != nil && !state.Up() {
		p.ports(ctx, j.plan.etcdAddresses()...)
	}
	return p.verdict()
}

// dial logs in at the signer as keys, or as those that may join if there are none.
func (j *join) dial(ctx context.Context, source netip.Addr, keys []ssh.Signer, known sshclient.HostKey) (*sshclient.Client, error) {
	if keys == nil {
		var err error
		if keys, err = j.identity(); err != nil {
			return nil, err
		}
	}
	return sshclient.Dial(ctx, sshclient.Options{Address: j.plan.Signer, Source: source, Keys: keys, HostKey: known})
}

func (j *join) identity() ([]ssh.Signer, error) {
	if path := j.plan.Identity; path != "" {
		key, err := sshclient.LoadKey(path)
		if err != nil {
			return nil, fmt.Errorf("--identity: %w", err)
		}
		return []ssh.Signer{key}, nil
	}
	keys, err := sshclient.FindKeys("/root")
	if err != nil {
		return nil, fmt.Errorf("%w: make one with ssh-keygen -t ed25519 and have it put into the signer's authorized_keys, or give --identity FILE", err)
	}
	return keys, nil
}

// ask sends one command to the signer that was met, with keys as dial takes them.
// The request leaves from the address that the certificate is for.
func (j *join) ask(ctx context.Context, keys []ssh.Signer, command wire.Command, stdin []byte) ([]byte, error) {
	source, err := netip.ParseAddr(j.plan.Source)
	if err != nil {
		return nil, err
	}
	client, err := j.dial(ctx, source, keys, sshclient.HostKey{Fingerprint: j.plan.SignerKey})
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // nothing is left to ask
	out, _, err := client.Run(ctx, command, stdin)
	return out, err
}

// askUntil asks again for as long as the answer may become another.
func (j *join) askUntil(ctx context.Context, command wire.Command, stdin []byte) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = j.eventually(ctx, time.Second, func(ctx context.Context) (bool, error) {
		var err error
		answer, err = j.ask(ctx, nil, command, stdin)
		refused, ok := errors.AsType[*wire.Error](err)
		passes := ok && refused.Status == wire.Retry || errors.Is(err, sshclient.ErrUnreachable)
		return !passes, signerTrouble(err)
	})
	return answer, err
}

func (j *join) steps() []step {
	return []step{
		{"clear", "clear the distribution's etcd out of the way", j.clearEtcd},
		{"trust", "fetch the CA", j.fetchTrust},
		{"key", "make the member's key", func(context.Context) (string, error) { return makeKey() }},
		{"certificate", "register, and get the member's certificate", j.fetchCertificate},
		{"meet", "meet the other members", j.meetMembers},
		{"etcd", "start etcd", j.startEtcd},
		{"vote", "wait until it votes", j.awaitVote},
		{"renewal", "have the certificate renewed from now on", j.keepValid},
		{"receipt", "write the receipt", j.finishJoin},
	}
}

func (j *join) fetchTrust(ctx context.Context) (string, error) {
	bundle, err := j.askUntil(ctx, wire.Command{Verb: wire.GetCertificate}, nil)
	if err != nil {
		return "", err
	}
	if err := checkPins(bundle, j.plan.CAFingerprints); err != nil {
		return "", err
	}
	if err := errors.Join(makePKIDir(), makeDir(configDir)); err != nil {
		return "", err
	}
	prints, err := member.Fingerprints(bundle)
	return strings.Join(prints, " "), errors.Join(err, durable.Replace(own.Trust, bundle, 0o644))
}

// asked is in the journal once the signer may have registered this member.
const asked = "asked"

// fetchCertificate asks for the certificate, with which signerd registers this
// member as a learner. What was asked before is answered again.
func (j *join) fetchCertificate(ctx context.Context) (string, error) {
	request, err := own.Request()
	if err != nil {
		return "", err
	}
	if err := j.journal.mark(asked); err != nil {
		return "", err
	}
	chain, err := j.askUntil(ctx, j.plan.request(), request)
	if err != nil {
		return "", err
	}
	if err := j.plan.checkChain(chain, j.now()); err != nil {
		return "", fmt.Errorf("what the signer sent is of no use: %w", err)
	}
	return own.Certificate, durable.Replace(own.Certificate, chain, 0o644)
}

// meetMembers finds out who is there, and meets everybody on both ports.
func (j *join) meetMembers(ctx context.Context) (string, error) {
	if err := j.fetchTopology(ctx); err != nil {
		return "", err
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := j.eventually(bounded, time.Second, func(ctx context.Context) (bool, error) {
		err := checkMembers(ctx, j.topology, j.plan.Name)
		return err == nil, err
	})
	return initialCluster(j.topology), err
}

func (j *join) fetchTopology(ctx context.Context) error {
	answer, err := j.askUntil(ctx, wire.Command{Verb: wire.GetTopology}, nil)
	if err != nil {
		return err
	}
	if j.topology, err = parseTopology(answer); err != nil {
		return err
	}
	if !lists(j.topology, j.plan.Name) {
		return fmt.Errorf("the cluster does not list %s: somebody removed it, or signerd gave it up since it was away for too long", j.plan.Name)
	}
	return nil
}

func (j *join) startEtcd(ctx context.Context) (string, error) {
	// After a reboot the topology is not known any more; etcd heeds it only
	// until it has data of its own.
	if j.running() {
		return "it has data already", startEtcd(ctx)
	}
	if j.topology == nil {
		if err := j.fetchTopology(ctx); err != nil {
			return "", err
		}
	}
	if _, err := j.clearEtcd(ctx); err != nil {
		return "", err
	}
	if err := j.configureEtcd(ctx, initialCluster(j.topology), "existing"); err != nil {
		return "", err
	}
	return "", startEtcd(ctx)
}

// awaitVote waits until this machine's own client port answers for a majority,
// which a learner's does not: 2381 says ready before 2379 is served.
func (j *join) awaitVote(ctx context.Context) (string, error) {
	return "", j.awaitEtcd(ctx, patience, listMembers)
}

func (j *join) keepValid(ctx context.Context) (string, error) {
	return member.SyncTimer, j.boot.keepValid(ctx, j.plan.Signer, j.plan.SignerKey, j.plan.KnownHost)
}

func (j *join) finishJoin(context.Context) (string, error) {
	return j.finish(j.plan.Signer, j.plan.SignerKey)
}
