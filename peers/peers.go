// Package peers is the etcd cluster as signerd sees it: who its members are,
// how one joins and leaves, and a place to keep a few facts. It is the only
// package that imports etcd's client.
//
// It does not log and does not retry what changes something: callers do, after
// they have asked again what is so.
package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	grpccredentials "google.golang.org/grpc/credentials"
)

// The classes of failure that callers tell apart. The text of an error that
// wraps ErrBusy or ErrTaken may be shown to the client.
var (
	// ErrAway is wrapped when etcd does not answer, or not to us.
	ErrAway = errors.New("etcd is away")
	// ErrBusy is wrapped when etcd's membership cannot change just now.
	ErrBusy = errors.New("not now")
	// ErrTaken is wrapped when a name or an address belongs to another member.
	ErrTaken = errors.New("denied")
	// ErrClock is wrapped when a port takes a new certificate for one that is not valid.
	ErrClock = errors.New("takes a new certificate for one that is not valid")
)

// Credentials are how signerd proves to etcd who it is, and by what it knows
// etcd.
type Credentials struct {
	// Roots gives the CAs by which a member is known in a handshake that begins now.
	Roots func() *x509.CertPool
	// Certificate gives the client certificate for a handshake that begins now. Nil:
	// none is shown.
	Certificate func(context.Context) (*tls.Certificate, error)
}

// TLS is how etcd is met with them, in a handshake that begins now.
func (c Credentials) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    c.Roots(),
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c.Certificate == nil {
				return &tls.Certificate{}, nil
			}
			return c.Certificate(request.Context()) // sent whatever CAs the server names
		},
	}
}

// Cluster is a connection to an etcd cluster that finds its members and comes
// back by itself. Its methods may be called from any goroutine.
type Cluster struct {
	client      *clientv3.Client
	configured  []string
	credentials Credentials

	changes    chan struct{} // holds a token while the membership is changed
	registered chan struct{} // holds a token when a member was registered

	mu   sync.Mutex
	last []Member // the last list that etcd gave
}

// Time limits of a question to etcd. Two in a row stay below the five seconds
// that a client may wait for get-peers.
const (
	askTimeout    = 1500 * time.Millisecond
	changeTimeout = 5 * time.Second
)

// transport takes the credentials anew for each handshake: the CAs may be others than
// when the Cluster was made.
type transport struct {
	grpccredentials.TransportCredentials
	credentials Credentials
}

func (t transport) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	return grpccredentials.NewTLS(t.credentials.TLS()).ClientHandshake(ctx, authority, conn)
}

// Clone keeps the type, which grpc makes copies of.
func (t transport) Clone() grpccredentials.TransportCredentials {
	return transport{t.TransportCredentials.Clone(), t.credentials}
}

// Connect makes a Cluster from the client URLs of some members. It does not
// wait for etcd: what is wrong shows with the first question.
func Connect(endpoints []string, credentials Credentials) (*Cluster, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  credentials.TLS(),
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(transport{grpccredentials.NewTLS(credentials.TLS()), credentials}), grpc.WithConnectParams(grpc.ConnectParams{
			// etcd that comes back is found again soon.
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to etcd: %w", err)
	}
	return &Cluster{client: client, configured: endpoints, credentials: credentials, changes: make(chan struct{}, 1), registered: make(chan struct{}, 1)}, nil
}

// Roots gives the CAs by which etcd's members are known now.
func (c *Cluster) Roots() *x509.CertPool { return c.credentials.Roots() }

// Certificate gives the certificate that etcd would be shown now; nil if there is
// none.
func (c *Cluster) Certificate(ctx context.Context) *tls.Certificate {
	if c.credentials.Certificate == nil {
		return nil
	}
	certificate, err := c.credentials.Certificate(ctx)
	if err != nil {
		return nil
	}
	return certificate
}

// Endpoints are the client URLs by which etcd is asked.
func (c *Cluster) Endpoints() []string { return c.client.Endpoints() }

// Close ends all connections.
func (c *Cluster) Close() error { return c.client.Close() }

// lock keeps changes of the membership one after another, for as long as the
// caller waits.
func (c *Cluster) lock(ctx context.Context) error {
	select {
	case c.changes <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: another member is being changed; try again", ErrBusy)
	}
}

func (c *Cluster) unlock() { <-c.changes }

// away turns an error of etcd's client into one that says what is really
// wrong: the client itself reports a refused certificate as a deadline. ctx is the
// caller's, and not the bounded one of the question, whose time is over by then.
func (c *Cluster) away(ctx context.Context, doing string, err error) error {
	if errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty) {
		return fmt.Errorf("%w: %s: %v: with authentication on, etcd must know signerd: etcdctl user add signerd --no-password; etcdctl user grant-role signerd root",
			ErrAway, doing, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %s: %w", ErrAway, doing, ctx.Err())
	}
	if reasons := c.diagnose(ctx); reasons != nil {
		return fmt.Errorf("%w: %s: %s", ErrAway, doing, oneLine(reasons))
	}
	return fmt.Errorf("%w: %s: %v", ErrAway, doing, err)
}

// oneLine puts joined errors into one sentence.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// remember keeps a list for when etcd is away, and turns to the members in it.
func (c *Cluster) remember(members []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoints := slices.Clone(c.configured)
	for _, m := range members {
		for _, url := range m.ClientURLs {
			if !m.Learner && !slices.Contains(endpoints, url) {
				endpoints = append(endpoints, url)
			}
		}
	}
	if !slices.Equal(endpoints, c.client.Endpoints()) {
		c.client.SetEndpoints(endpoints...)
	}
	c.last = members
}

func (c *Cluster) remembered() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Names gives the names of the members as etcd listed them last.
func (c *Cluster) Names() []string {
	var names []string
	for _, m := range c.remembered() {
		if m.Started() {
			names = append(names, m.Name)
		}
	}
	return names
}
