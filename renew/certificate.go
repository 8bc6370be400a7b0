package renew

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// askPatience bounds the talk with one signer, so that one that hangs leaves time
// for the next.
const askPatience = 45 * time.Second

// renew brings the bundle and the certificate up to date, from the first signer
// that can serve it. It asks by the member's own key, which no expiry shuts out.
func (s *syncer) renew(ctx context.Context) error {
	keys, err := s.files.SSHKeys()
	if err != nil {
		return fmt.Errorf("the member's key: %w", err)
	}
	var problems *multierror.Error
	for _, at := range s.member.Signers {
		err := s.renewAt(ctx, at, keys)
		if err == nil || onlyClock(err) {
			return err
		}
		problems = multierror.Append(problems, err) // another one may serve
	}
	return problems.ErrorOrNil()
}

func (s *syncer) renewAt(ctx context.Context, at config.SignerAt, keys []ssh.Signer) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	client, err := sshclient.Dial(ctx, sshclient.Options{
		Address: at.Address, Keys: keys,
		HostKey: sshclient.HostKey{Fingerprint: at.HostKey, Files: []string{s.member.KnownHosts}},
	})
	if err != nil {
		return explainDial(at.Address, err)
	}
	defer client.Close() //nolint:errcheck // the answers are here
	status, err := s.status(ctx, client)
	var skew error
	if err == nil {
		skew = s.skew(status.Time)
		err = s.renewFrom(ctx, client, status, skew != nil)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", at.Address, err)
	}
	if skew == nil {
		return err
	}
	return &skewError{skew, err} // whatever else went wrong, nothing may be restarted
}

// skewError says that the clocks differ, and what else went wrong, if anything.
type skewError struct{ skew, rest error }

func (e *skewError) Error() string {
	if e.rest == nil {
		return e.skew.Error()
	}
	return e.skew.Error() + "; " + e.rest.Error()
}

func (e *skewError) Unwrap() []error { return []error{e.skew, e.rest} }

// onlyClock says whether all was done, by a clock that is wrong.
func onlyClock(err error) bool {
	skewed, ok := errors.AsType[*skewError](err)
	return ok && skewed.rest == nil
}

// explainDial says what to do about a signer that cannot be asked.
func explainDial(address string, err error) error {
	switch {
	case errors.Is(err, sshclient.ErrLogin):
		return fmt.Errorf("%w: was the member removed, or its name released? an SSH key that may ask for it gives it its name back (/usr/share/doc/signerd/runbook.md, Renewal of a member)", err)
	case errors.Is(err, sshclient.ErrHostKey):
		return fmt.Errorf("%w: nothing was sent; if the signer has a new host key, put it into /etc/signerd/known_hosts or member.yaml", err)
	}
	return fmt.Errorf("%s: %w", address, err)
}

// renewFrom takes what one signer has. skewed says that this machine's time is another
// than the signer's, by which certificates are judged.
func (s *syncer) renewFrom(ctx context.Context, client *sshclient.Client, status *wire.ClusterStatus, skewed bool) error {
	if urls, _, err := client.Run(ctx, wire.Command{Verb: wire.GetPeers}, nil); err == nil {
		s.others = strings.Fields(string(urls)) // without etcd nobody knows them, and nothing needs them
	}
	o, err := s.offered(ctx, client, status)
	if err != nil {
		return err
	}
	key, err := s.files.LoadKey()
	if err != nil {
		return err
	}
	if err := member.WriteCrossed(o.needNotLoad()); err != nil {
		return err
	}
	// The CAs come first, whatever becomes of the certificate: the others may show
	// new ones. But what this member itself shows must lead to them.
	if s.lives(o.cas, key, o.time) {
		if err := s.writeBundle(o.bundle); err != nil {
			return err
		}
	}
	reason := s.due(o.cas, key, o.time)
	if reason == "" {
		return nil
	}
	if keep, err := s.keeps(ctx, o, key, skewed); err != nil {
		return fmt.Errorf("the certificate is to be renewed, since %s: %w", reason, err)
	} else if keep {
		return nil
	}
	chain, err := s.issue(ctx, client, o.cas, key, o.time)
	if err != nil {
		return fmt.Errorf("renewing the certificate, since %s: %w", reason, err)
	}
	return errors.Join(s.writeBundle(o.bundle), s.writeCertificate(chain, reason))
}

// keeps says whether the certificate that is there stays for now. One that lives by what
// is trusted is not thrown away: not by a clock that is wrong, and not for a CA that
// somebody does not trust yet. Then the error says who.
func (s *syncer) keeps(ctx context.Context, o *offer, key crypto.Signer, skewed bool) (bool, error) {
	trusted, _ := s.files.CAs()
	lives := s.lives(trusted, key, o.time) || s.lives(o.cas, key, o.time) || skewed && s.lives(trusted, key, s.now())
	switch {
	case !lives:
		return false, nil
	case skewed:
		return true, nil
	case slices.Contains(o.crossed(), signer.Fingerprint(o.cas[0])):
		return false, nil
	}
	err := s.mayChange(ctx, o.cas[0])
	return err != nil, err
}

// lives says whether the certificate that is there is one for the key that leads to
// some CAs at a time; its names are another matter.
func (s *syncer) lives(cas []*x509.Certificate, key crypto.Signer, at time.Time) bool {
	chain, err := s.files.Chain()
	return err == nil && member.Lives(chain, cas, key, at) == nil
}

// mayChange says which member's etcd does not trust the CA yet that signs now, if
// it is another one than the present certificate's. What that CA signs is of no use
// before all do: a member that shows it too early is shut out, of its own etcd too.
func (s *syncer) mayChange(ctx context.Context, ca *x509.Certificate) error {
	present, err := s.files.Chain()
	if err != nil || present[0].CheckSignatureFrom(ca) == nil {
		return err
	}
	cluster, err := s.connect(s.others...)
	if err != nil {
		return err
	}
	defer cluster.Close() //nolint:errcheck // nothing is left to do on it
	members, err := cluster.Members(ctx)
	if err != nil {
		return fmt.Errorf("another CA signs now, and who trusts it cannot be seen: %w", err)
	}
	show, _ := s.files.Pair() // without one there is less to see
	until := present[0].NotAfter.UTC().Format(time.RFC3339)
	for _, m := range members {
		for _, text := range slices.Concat(m.ClientURLs[:min(1, len(m.ClientURLs))], m.PeerURLs) {
			u, err := url.Parse(text)
			if err != nil {
				return err
			}
			served, err := peers.Inspect(ctx, u.Host, show)
			if err != nil {
				return fmt.Errorf("another CA signs now, and whether %s trusts it cannot be seen; until %s there is time: %w", m.Name, until, err)
			}
			if _, missing := served.Difference([]*x509.Certificate{ca}); len(missing) > 0 {
				return fmt.Errorf("another CA signs now, %s, which %s (%s) does not trust yet; until %s there is time", missing[0], m.Name, u.Host, until)
			}
		}
	}
	return nil
}

// status asks for the signer's status.
func (s *syncer) status(ctx context.Context, client *sshclient.Client) (*wire.ClusterStatus, error) {
	answer, _, err := client.Run(ctx, wire.Command{Verb: wire.GetStatus}, nil)
	if err != nil {
		return nil, fmt.Errorf("asking for the status: %w", err)
	}
	status, err := wire.ParseClusterStatus(answer)
	if err != nil {
		return nil, err
	}
	if status.Cluster != s.member.Cluster {
		return nil, fmt.Errorf("it signs for the cluster %s, and this is a member of %s: is its address right?", status.Cluster, s.member.Cluster)
	}
	return status, nil
}

// skew says whether this machine's clock differs from the signer's.
func (s *syncer) skew(signers time.Time) error {
	now := s.now()
	if now.Sub(signers).Abs() <= member.MaxSkew {
		return nil
	}
	return fmt.Errorf("%w: this machine's says %s, and the signer's says %s: set the one that is wrong (timedatectl)",
		ErrClock, now.UTC().Format(time.RFC3339), signers.UTC().Format(time.RFC3339))
}

// due gives the reason why the certificate is to be issued again, or nothing. It
// is due early, when a third of its life is gone.
func (s *syncer) due(cas []*x509.Certificate, key crypto.Signer, now time.Time) string {
	chain, err := s.files.Chain()
	if err != nil {
		return err.Error()
	}
	leaf := chain[0]
	switch err := member.UseOf(s.member).Check(chain, cas, key, now); {
	case err != nil:
		return err.Error()
	case leaf.CheckSignatureFrom(cas[0]) != nil: // the first one signs now
		return "its CA signs no more"
	case s.hasOthers(leaf):
		return "it has other addresses than member.yaml"
	case now.After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3)):
		return "a third of its life is gone"
	}
	return ""
}

// hasOthers says whether a certificate has addresses that are not this member's.
func (s *syncer) hasOthers(leaf *x509.Certificate) bool {
	ours := []string{s.member.Name, "localhost", signer.PeerName(s.member.Cluster)}
	for _, a := range s.member.Addresses {
		ours = append(ours, a.String())
	}
	foreign := func(name string) bool { return !slices.Contains(ours, name) }
	return slices.ContainsFunc(leaf.DNSNames, foreign) || slices.ContainsFunc(leaf.IPAddresses, func(ip net.IP) bool {
		return !ip.IsLoopback() && foreign(ip.String())
	})
}

// issue asks for a certificate and checks what comes.
func (s *syncer) issue(ctx context.Context, client *sshclient.Client, cas []*x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	request, err := s.files.Request()
	if err != nil {
		return nil, err
	}
	answer, _, err := client.Run(ctx, wire.Command{Verb: wire.Member, Name: s.member.Name, Addresses: s.member.Addresses}, request)
	if err != nil {
		return nil, err
	}
	chain, err := signer.ParseCertificates(answer)
	if err == nil {
		err = member.UseOf(s.member).Check(chain, cas, key, now)
	}
	if err == nil {
		err = chain[0].CheckSignatureFrom(cas[0]) // a rotation may have gone on since they were asked for
	}
	if err != nil {
		return nil, fmt.Errorf("what the signer sent is of no use: %w", err)
	}
	return answer, nil
}

// hasBundle says whether these very CAs are in place.
func (s *syncer) hasBundle(bundle []byte) bool {
	present, err := os.ReadFile(s.files.Trust)
	return err == nil && bytes.Equal(present, bundle)
}

// writeBundle puts CAs in place, if they are others.
func (s *syncer) writeBundle(bundle []byte) error {
	if s.hasBundle(bundle) {
		return nil
	}
	if err := durable.Replace(s.files.Trust, bundle, 0o644); err != nil {
		return err
	}
	prints, err := member.Fingerprints(bundle)
	if err != nil {
		return err
	}
	s.say("wrote the trust bundle: %d CAs, the first is %s", len(prints), prints[0])
	return nil
}

func (s *syncer) writeCertificate(chain []byte, reason string) error {
	if err := durable.Replace(s.files.Certificate, chain, 0o644); err != nil {
		return err
	}
	written, err := s.files.Chain()
	if err != nil {
		return err
	}
	s.say("renewed the certificate until %s, since %s", written[0].NotAfter.UTC().Format(time.RFC3339), reason)
	return nil
}
