package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
)

// meet asks the signer everything that can be asked before anything changes.
func (j *join) meet(ctx context.Context, p *preflight, o JoinOptions) {
	way := wayTo(ctx, j.plan.Signer)
	var source netip.Addr
	if len(o.Addresses) > 0 {
		// The signer signs for the address that the request comes from.
		if first, err := wire.ParseAddress(o.Addresses[0]); err == nil {
			source = j.sourceOf(ctx, first)
		}
	}
	client, err := j.dial(ctx, source, nil, sshclient.HostKey{Fingerprint: o.SignerFingerprint, Files: knownHosts()})
	if unknown, ok := errors.AsType[*sshclient.UnknownKeyError](err); ok && o.Ask != nil {
		switch {
		case p.verdict() != nil || j.refuses(ctx, o, way):
			err = fmt.Errorf("the signer was not asked: %v; say yes to it when all else is well", unknown) // nobody is asked in vain
		case o.Ask(ctx, unknown.Host, unknown.Fingerprint):
			client, err = j.dial(ctx, source, nil, sshclient.HostKey{Fingerprint: unknown.Fingerprint})
		default:
			err = fmt.Errorf("%w of %s was not accepted", sshclient.ErrHostKey, unknown.Host)
		}
	}
	if err != nil {
		p.check(signerTrouble(err))
		j.plan.Name, j.plan.Addresses, j.plan.Bind = p.names(ctx, o.Name, o.Addresses, way)
		return
	}
	defer client.Close() //nolint:errcheck // nothing is left to ask
	j.plan.SignerKey = ssh.FingerprintSHA256(client.HostKeyOf())
	j.plan.Source = client.Source().String()
	j.plan.KnownHost = sshclient.KnownHostsLine(j.plan.Signer, client.HostKeyOf())
	j.plan.Name, j.plan.Addresses, j.plan.Bind = p.names(ctx, o.Name, o.Addresses, client.Source().String())

	answer, _, err := client.Run(ctx, wire.Command{Verb: wire.GetStatus}, nil)
	if !p.check(signerTrouble(err)) {
		return
	}
	status, err := wire.ParseClusterStatus(answer)
	if err != nil {
		p.problem("%s: %w", j.plan.Signer, err)
		return
	}
	j.plan.Cluster = status.Cluster
	p.absent(j.plan.dataDir(), "it is where etcd's data is to be; move it away if it is of no use")
	if o.Cluster != "" && o.Cluster != status.Cluster {
		p.problem("%s signs for the cluster %s, not %s: is --signer-ip the right signer's?", j.plan.Signer, status.Cluster, o.Cluster)
	}
	if now := j.now(); now.Sub(status.Time).Abs() > member.MaxSkew {
		p.problem("this machine's clock says %s, and the signer's says %s: set the one that is wrong (timedatectl), then run this again",
			now.UTC().Format(time.RFC3339), status.Time.UTC().Format(time.RFC3339))
	}
	bundle, _, err := client.Run(ctx, wire.Command{Verb: wire.GetCertificate}, nil)
	if p.check(signerTrouble(err)) {
		p.check(checkPins(bundle, j.plan.CAFingerprints))
	}
	answer, _, err = client.Run(ctx, wire.Command{Verb: wire.GetTopology}, nil)
	if p.check(signerTrouble(err)) {
		if topology, err := parseTopology(answer); p.check(err) {
			p.place(j.plan, topology)
		}
	}
}

// refuses says whether the options name what this machine cannot be, which is said in its
// turn: by then a person would have been asked in vain. Way is the address that the way to
// the signer leaves by.
func (j *join) refuses(ctx context.Context, o JoinOptions, way string) bool {
	p := &preflight{observe: func(Event) {}}
	if len(o.Addresses) == 0 && way == "" {
		return false // the signer will tell
	}
	_, _, bind := p.names(ctx, o.Name, o.Addresses, way)
	if !j.found.EtcdUp {
		p.ports(ctx, (&plan{Bind: bind}).etcdAddresses()...)
	}
	return p.verdict() != nil
}

// sourceOf gives this machine's IP address that an address stands for, of the
// signer's family where there are two; invalid if there is none.
func (j *join) sourceOf(ctx context.Context, a wire.Address) netip.Addr {
	ips, err := localIPs(ctx, a)
	if err != nil || len(ips) == 0 {
		return netip.Addr{}
	}
	if signer, err := netip.ParseAddrPort(j.plan.Signer); err == nil {
		for _, ip := range ips {
			if ip.Is4() == signer.Addr().Unmap().Is4() {
				return ip
			}
		}
	}
	return ips[0]
}

// place checks that nobody has our name or one of our addresses.
func (p *preflight) place(plan plan, topology []place) {
	for _, m := range topology {
		ours := slices.Contains(plan.Addresses, m.address)
		switch {
		case m.name == plan.Name && ours:
			p.problem("%s at %s is in the cluster already, and this machine has no data of it: if that member is dead, remove it first: ssh signer@... remove %s",
				m.name, m.address, m.name)
		case m.name == plan.Name:
			p.problem("the name %s belongs to a member at %s: give --name, or if that member is dead remove it first: ssh signer@... remove %s", m.name, m.address, m.name)
		case ours:
			p.problem("the address %s belongs to the member %s: give --address, or if that member is dead remove it first: ssh signer@... remove %s", m.address, m.name, m.name)
		}
	}
}

// checkPins holds every CA that is handed out against those that may be.
func checkPins(bundle []byte, pins []string) error {
	prints, err := member.Fingerprints(bundle)
	if err != nil {
		return fmt.Errorf("the signer's CA: %w", err)
	}
	for _, f := range prints {
		if len(pins) > 0 && !slices.Contains(pins, f) {
			return fmt.Errorf("%w: the signer hands out the CA %s, which is none of --ca-fingerprint: is this another cluster?", ErrDenied, f)
		}
	}
	return nil
}

// knownHosts are the files in which the signer's host key may be.
func knownHosts() []string {
	return []string{knownHostsPath, "/root/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"}
}

// signerTrouble says what to do about a signer that does not do what is asked.
func signerTrouble(err error) error {
	refused, ok := errors.AsType[*wire.Error](err)
	switch {
	case err == nil:
		return nil
	case ok && refused.Status == wire.Denied:
		return fmt.Errorf("%w: the signer says: %s", ErrDenied, refused.Text)
	case ok:
		return fmt.Errorf("the signer says: %s", refused.Text)
	case errors.Is(err, sshclient.ErrUnreachable):
		return fmt.Errorf("%w: is its address right, and does signerd run there?", err)
	case errors.Is(err, sshclient.ErrHostKey):
		return fmt.Errorf("%w: %w; --signer-fingerprint SHA256:... says which it must be", ErrDenied, err)
	case errors.Is(err, sshclient.ErrLogin):
		return fmt.Errorf("%w: %w: it must be in the signer's authorized_keys with permit=\"get-*,etcd-*\", and its from= and expiry-time= must allow it", ErrDenied, err)
	}
	return err
}

var pinForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// parsePins accepts SHA-256 fingerprints of certificates as init prints them, or
// as openssl x509 -fingerprint does, and gives them in the first form, sorted.
func parsePins(texts []string) ([]string, error) {
	var pins []string
	for _, text := range texts {
		pin := strings.ToLower(strings.ReplaceAll(text, ":", ""))
		if !pinForm.MatchString(pin) {
			return nil, fmt.Errorf("%q is not a certificate's SHA-256: 64 hex digits", text)
		}
		pins = append(pins, pin)
	}
	slices.Sort(pins)
	return pins, nil
}
