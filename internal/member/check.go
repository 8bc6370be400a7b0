package member

import (
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// Use is what a member's certificate must be good for.
type Use struct {
	PeerName  string         // the name that opens the peer port
	Addresses []wire.Address // where others dial this member
}

// UseOf gives the use of the member that member.yaml says this machine is.
func UseOf(m *config.Member) Use {
	return Use{PeerName: signer.PeerName(m.Cluster), Addresses: m.Addresses}
}

// Check says why a chain, the certificate first, is not one for a key that a
// member can show on both of etcd's ports: by one of the CAs, for servers and for
// clients, with every name, and valid at now.
func (u Use) Check(chain, cas []*x509.Certificate, key crypto.Signer, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("there is no certificate")
	}
	leaf := chain[0]
	if err := Lives(chain, cas, key, now); err != nil {
		return err
	}
	if err := leaf.VerifyHostname(u.PeerName); err != nil {
		return err
	}
	for _, a := range u.Addresses {
		if err := leaf.VerifyHostname(a.String()); err != nil {
			return err
		}
	}
	return nil
}

// Lives says why a chain, the certificate first, is not one for a key that the
// other members accept, as a server and as a client; its names are another matter.
func Lives(chain, cas []*x509.Certificate, key crypto.Signer, now time.Time) error {
	if err := Fits(chain[0], key); err != nil {
		return err
	}
	if err := Verify(chain, cas, x509.ExtKeyUsageServerAuth, now); err != nil {
		return err
	}
	return Verify(chain, cas, x509.ExtKeyUsageClientAuth, now)
}

// Verify says why a chain, the certificate first, does not lead to one of the CAs
// for one usage at now, and what to do about it.
func Verify(chain, cas []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: Pool(cas), Intermediates: Pool(chain[1:]), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return explain(err, chain, cas, usage, now)
	}
	return nil
}
