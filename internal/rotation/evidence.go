package rotation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// port is what one port of a member was seen to do.
type port struct {
	member  string
	address string          // host:port; empty: there is none to look at
	serves  string          // the generation that signed its certificate; empty: none of ours
	admits  map[string]bool // whether it lets a certificate by a generation in
	trouble error           // why it could not be seen
}

// errJoining is the trouble with a member that does not vote yet.
var errJoining = errors.New("it is joining")

// look looks at both ports of every member, with a probe by each generation.
func (d *Driver) look(ctx context.Context, generations []*signer.Generation) ([]port, error) {
	members, err := d.cluster.Members(ctx)
	if err != nil {
		return nil, err
	}
	var ports []port
	for _, m := range members {
		if !m.Started() || m.Learner || len(m.ClientURLs) == 0 || len(m.PeerURLs) == 0 {
			name := m.Name
			if name == "" {
				name = "a member"
			}
			ports = append(ports, port{member: name, trouble: errJoining})
			continue
		}
		for _, text := range []string{m.ClientURLs[0], m.PeerURLs[0]} {
			u, err := url.Parse(text)
			if err != nil {
				return nil, fmt.Errorf("the URL of %s: %w", m.Name, err)
			}
			ports = append(ports, port{member: m.Name, address: u.Host})
		}
	}
	var group sync.WaitGroup
	for i := range ports {
		if p := &ports[i]; p.trouble == nil {
			group.Go(func() { p.trouble = d.lookAt(ctx, p, generations) })
		}
	}
	group.Wait()
	return ports, nil
}

// lookAt looks at one port.
func (d *Driver) lookAt(ctx context.Context, p *port, generations []*signer.Generation) error {
	source, err := sourceTo(ctx, p.address)
	if err != nil {
		return err
	}
	p.admits = map[string]bool{}
	for _, g := range generations {
		if now := d.now(); now.After(g.Certificate.NotAfter) || now.Before(g.From()) {
			p.admits[g.ID] = false // nobody accepts what it signs
			continue
		}
		show, err := d.probes.by(ctx, g, source, d.now())
		if err != nil {
			return err
		}
		if p.serves == "" {
			served, err := peers.Inspect(ctx, p.address, show)
			if err != nil {
				return err
			}
			p.serves = issuerOf(served.Chain[0], generations)
		}
		admitted, err := peers.Admits(ctx, p.address, peers.Credentials{
			Roots:       d.cluster.Roots,
			Certificate: func(context.Context) (*tls.Certificate, error) { return show, nil },
		})
		if err != nil {
			return err
		}
		p.admits[g.ID] = admitted
	}
	return nil
}

// issuerOf gives the generation that signed a certificate.
func issuerOf(c *x509.Certificate, generations []*signer.Generation) string {
	for _, g := range generations {
		if bytes.Equal(c.RawIssuer, g.Certificate.RawSubject) && c.CheckSignatureFrom(g.Certificate) == nil {
			return g.ID
		}
	}
	return ""
}

// sourceTo gives this machine's address on the way to a port; nothing is sent.
func sourceTo(ctx context.Context, address string) (wire.Address, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return wire.Address{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return wire.Address{}, err
	}
	return wire.AddressFrom(local.Addr().WithZone("")), nil
}

// probes are certificates to look at ports with. They are kept for a while, and then all
// made anew, so that one is not older than another.
type probes struct {
	signer *signer.Signer

	mu    sync.Mutex
	began time.Time
	made  map[probeFor]*tls.Certificate
}

// probesKept is how long, which leaves them most of their hour.
const probesKept = 10 * time.Minute

type probeFor struct {
	generation string
	source     wire.Address
}

func newProbes(s *signer.Signer) *probes {
	return &probes{signer: s, made: map[probeFor]*tls.Certificate{}}
}

// by gives one by a generation, for the way from a source.
func (p *probes) by(ctx context.Context, g *signer.Generation, source wire.Address, now time.Time) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.began).Abs() > probesKept {
		p.began = now
		clear(p.made)
	}
	which := probeFor{g.ID, source}
	// A clock that was ahead leaves one for the future.
	if c := p.made[which]; c != nil && now.Before(c.Leaf.NotAfter) && !now.Before(c.Leaf.NotBefore) {
		return c, nil
	}
	made, err := p.signer.Probe(ctx, now, g, source)
	if err != nil {
		return nil, err
	}
	p.made[which] = made
	return made, nil
}
