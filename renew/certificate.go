package renew

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// maxSkew is how far this machine's clock may be from the signer's. A certificate
// begins 5 minutes before it is signed.
const maxSkew = time.Minute

// renew brings the bundle and the certificate up to date, from the first signer
// that answers. It asks by the member's own key, which no expiry shuts out.
func (s *syncer) renew(ctx context.Context) error {
	keys, err := s.files.SSHKeys()
	if err != nil {
		return fmt.Errorf("the member's key: %w", err)
	}
	var problems []error
	for _, at := range s.member.Signers {
		client, err := sshclient.Dial(ctx, sshclient.Options{
			Address: at.Address, Keys: keys,
			HostKey: sshclient.HostKey{Fingerprint: at.HostKey, Files: []string{s.member.KnownHosts}},
		})
		if err != nil {
			problems = append(problems, explainDial(at.Address, err))
			continue
		}
		err = s.renewFrom(ctx, client)
		_ = client.Close() // the answers are here
		refused, ok := errors.AsType[*wire.Error](err)
		if errors.Is(err, sshclient.ErrUnreachable) || ok && refused.Status == wire.Retry {
			problems = append(problems, fmt.Errorf("%s: %w", at.Address, err))
			continue // another signer may
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at.Address, err)
		}
		return nil
	}
	return fmt.Errorf("no signer could be asked: %w", errors.Join(problems...))
}

// explainDial says what to do about a signer that cannot be asked.
func explainDial(address string, err error) error {
	switch {
	case errors.Is(err, sshclient.ErrLogin):
		return fmt.Errorf("%w: was the member removed, or its name released? an SSH key that may ask for it gives it its name back (runbook, Renewal of a member)", err)
	case errors.Is(err, sshclient.ErrHostKey):
		return fmt.Errorf("%w: nothing was sent; if the signer has a new host key, put it into /etc/signerd/known_hosts or member.yaml", err)
	}
	return fmt.Errorf("%s: %w", address, err)
}

func (s *syncer) renewFrom(ctx context.Context, client *sshclient.Client) error {
	now, skew, err := s.clock(ctx, client)
	if err != nil {
		return err
	}
	bundle, _, err := client.Run(ctx, wire.Command{Verb: wire.GetCertificate}, nil)
	if err != nil {
		return fmt.Errorf("asking for the CAs: %w", err)
	}
	cas, err := s.acceptable(bundle)
	if err != nil {
		return err
	}
	key, err := s.files.LoadKey()
	if err != nil {
		return err
	}
	var chain []byte
	reason := s.due(cas, key, now)
	if reason != "" {
		if chain, err = s.issue(ctx, client, cas, key, now); err != nil {
			return fmt.Errorf("renewing the certificate, since %s: %w", reason, err)
		}
	}
	if err := s.write(bundle, chain, reason); err != nil {
		return err
	}
	return skew
}

// clock gives the signer's time, by which certificates are judged, and whether
// this machine's differs from it.
func (s *syncer) clock(ctx context.Context, client *sshclient.Client) (now time.Time, skew, err error) {
	answer, _, err := client.Run(ctx, wire.Command{Verb: wire.GetStatus}, nil)
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("asking for the status: %w", err)
	}
	var status wire.ClusterStatus
	if err := json.Unmarshal(answer, &status); err != nil {
		return time.Time{}, nil, fmt.Errorf("what answers is no signer: %w", err)
	}
	if status.Cluster != s.member.Cluster {
		return time.Time{}, nil, fmt.Errorf("it signs for the cluster %s, and this is a member of %s: is its address right?", status.Cluster, s.member.Cluster)
	}
	if now := s.now(); now.Sub(status.Time).Abs() > maxSkew {
		skew = fmt.Errorf("%w: this machine's says %s, and the signer's says %s: set the one that is wrong (timedatectl)",
			ErrClock, now.UTC().Format(time.RFC3339), status.Time.UTC().Format(time.RFC3339))
	}
	return status.Time, skew, nil
}

// acceptable checks a bundle before it takes the place of the one that is there.
// A rotation always leaves one CA in common: whoever has been away for longer
// needs a person to look at the fingerprints.
func (s *syncer) acceptable(bundle []byte) ([]*x509.Certificate, error) {
	cas, err := signer.ParseCertificates(bundle)
	if err != nil {
		return nil, fmt.Errorf("the signer's CAs: %w", err)
	}
	present, _ := s.files.CAs()
	if len(present) == 0 {
		return cas, nil // nothing is left that could be protected
	}
	for _, c := range cas {
		if slices.ContainsFunc(present, c.Equal) {
			return cas, nil
		}
	}
	return nil, fmt.Errorf("the signer hands out CAs of which none is in %s (%s): compare the fingerprint with the operator of the CA, and if it is right put it there: ssh signer@... get-certificate",
		s.files.Trust, signer.Fingerprint(cas[0]))
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
	if err != nil {
		return nil, fmt.Errorf("what the signer sent is of no use: %w", err)
	}
	return answer, nil
}

// write puts what is new in place: the bundle first, so that whatever starts
// meanwhile trusts what the others show.
func (s *syncer) write(bundle, chain []byte, reason string) error {
	if present, err := os.ReadFile(s.files.Trust); err != nil || !bytes.Equal(present, bundle) {
		if err := durable.Replace(s.files.Trust, bundle, 0o644); err != nil {
			return err
		}
		prints, err := member.Fingerprints(bundle)
		if err != nil {
			return err
		}
		s.say("wrote the trust bundle: %d CAs, the first is %s", len(prints), prints[0])
	}
	if chain == nil {
		return nil
	}
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
