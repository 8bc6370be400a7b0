package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"
)

// diagnoseTimeout bounds the look at each endpoint.
const diagnoseTimeout = time.Second

// diagnose connects to each endpoint by hand and gives what goes wrong, in
// TLS's own words; nil if nothing does.
func (c *Cluster) diagnose(ctx context.Context) error {
	endpoints := c.client.Endpoints()
	reasons := make([]error, len(endpoints))
	var group sync.WaitGroup
	for i, endpoint := range endpoints {
		group.Go(func() {
			if err := c.probe(ctx, endpoint); err != nil {
				reasons[i] = fmt.Errorf("%s: %w", endpoint, withoutPorts(err))
			}
		})
	}
	group.Wait()
	return errors.Join(reasons...)
}

// probe connects to one endpoint by hand.
func (c *Cluster) probe(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, diagnoseTimeout)
	defer cancel()
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	config := c.credentials.TLS()
	config.NextProtos = []string{"h2"}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	// In TLS 1.3 a server refuses our certificate only after the handshake.
	if err := conn.SetReadDeadline(time.Now().Add(diagnoseTimeout / 4)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// answers says whether a member's etcd answers at its peer port: while it catches
// up with much data it does so long before it serves clients. That it then
// refuses us, who are no member, is an answer too.
func (c *Cluster) answers(ctx context.Context, m Member) bool {
	ctx, cancel := context.WithTimeout(ctx, diagnoseTimeout)
	defer cancel()
	for _, text := range m.PeerURLs {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		dialer := tls.Dialer{Config: c.credentials.TLS()}
		if conn, err := dialer.DialContext(ctx, "tcp", hostPort(u)); err == nil {
			return conn.Close() == nil
		}
	}
	return false
}

// withoutPorts leaves out the addresses of one connection, which are others each
// time while the reason is the same.
func withoutPorts(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}

func hostPort(u *url.URL) string {
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}
