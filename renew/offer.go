package renew

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// offer is what a signer hands out. A bundle that is new here is of the same moment as the
// generations.
type offer struct {
	time        time.Time // by the signer's clock
	generations []wire.GenerationStatus
	bundle      []byte
	cas         []*x509.Certificate // that are in it; the first one signs
}

// offered asks a signer, which has given its status, for its CAs.
func (s *syncer) offered(ctx context.Context, client *sshclient.Client, status *wire.ClusterStatus) (*offer, error) {
	bundle, _, err := client.Run(ctx, wire.Command{Verb: wire.GetCertificate}, nil)
	if err != nil {
		return nil, fmt.Errorf("asking for the CAs: %w", err)
	}
	cas, err := s.acceptable(bundle)
	if err != nil {
		return nil, err
	}
	if !s.hasBundle(bundle) {
		// They are others: what the status said may be of before.
		before := status.Generations
		if status, err = s.status(ctx, client); err != nil {
			return nil, err
		}
		if !slices.EqualFunc(before, status.Generations, wire.GenerationStatus.Equal) {
			return nil, errors.New("the CA is being replaced at this very moment: a later run takes what is so then")
		}
	}
	return &offer{status.Time, status.Generations, bundle, cas}, nil
}

// crossed gives the fingerprints of the CAs whose certificates lead to the CA before
// them too.
func (o *offer) crossed() []string {
	var prints []string
	for _, g := range o.generations {
		if g.Cross {
			prints = append(prints, g.Fingerprint)
		}
	}
	return prints
}

// needNotLoad gives those of them that nobody needs to trust yet: the CA before is
// trusted still, and for as long as a certificate of today lives.
func (o *offer) needNotLoad() []string {
	if slices.ContainsFunc(o.generations, func(g wire.GenerationStatus) bool {
		return g.Role == string(signer.Inactive) || !g.Cross && g.NotAfter.Before(o.time.Add(signer.MemberLife))
	}) {
		return nil
	}
	return o.crossed()
}

// acceptable checks a bundle before it takes the place of the one that is there.
// A rotation always leaves one CA in common: whoever has been away for longer
// needs a person to look at the fingerprints. Where no certificate is left at all
// there is nothing to protect.
func (s *syncer) acceptable(bundle []byte) ([]*x509.Certificate, error) {
	cas, err := signer.ParseCertificates(bundle)
	if err != nil {
		return nil, fmt.Errorf("the signer's CAs: %w", err)
	}
	text, err := os.ReadFile(s.files.Trust)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Contains(text, []byte("CERTIFICATE-----")) {
		return cas, nil
	}
	present, err := s.files.CAs()
	if err != nil {
		return nil, fmt.Errorf("what is trusted now cannot be read: %w: mend it, or move it away", err)
	}
	for _, c := range cas {
		if slices.ContainsFunc(present, c.Equal) {
			return cas, nil
		}
	}
	return nil, fmt.Errorf("the signer hands out CAs of which none is in %s (%s): compare the fingerprint with the operator of the CA, and if it is right put it there: ssh signer@... get-certificate",
		s.files.Trust, signer.Fingerprint(cas[0]))
}
