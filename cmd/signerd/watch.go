package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/signerd/signerd/internal/metrics"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// watch knows what is about to expire, for the metrics.
type watch struct {
	metrics   *metrics.Metrics
	authority *signer.Authority
	ledger    *signer.Ledger

	mu     sync.Mutex
	etcd   bool
	served time.Time // when the first certificate that etcd serves expires
}

func newWatch(authority *signer.Authority) *watch {
	w := &watch{authority: authority}
	w.metrics = metrics.New(w.expiries)
	return w
}

// usable notes whether etcd can be used; without a watch nobody asks.
func (w *watch) usable(etcd bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.etcd = etcd
}

// servedEvery is how often etcd's members are looked at.
const servedEvery = time.Minute

// run looks at what etcd's members serve, now and then until ctx ends.
func (w *watch) run(ctx context.Context, cluster *peers.Cluster) {
	for {
		first := firstServed(ctx, cluster)
		w.mu.Lock()
		w.served = first
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(servedEvery):
		}
	}
}

// firstServed gives when the first certificate expires that the members serve to
// clients; zero: none was seen.
func firstServed(ctx context.Context, cluster *peers.Cluster) (first time.Time) {
	members, _, err := cluster.Known(ctx)
	if err != nil {
		return first // the keeper says so
	}
	for _, address := range peers.ClientURLs(members) {
		u, err := url.Parse(address)
		if err != nil {
			continue
		}
		s, err := peers.Inspect(ctx, u.Host, cluster.Certificate(ctx))
		if err == nil && (first.IsZero() || s.Chain[0].NotAfter.Before(first)) {
			first = s.Chain[0].NotAfter
		}
	}
	return first
}

// expiries gives the nearest expiry of each kind.
func (w *watch) expiries(now time.Time) metrics.Expiries {
	w.mu.Lock()
	e := metrics.Expiries{CA: w.authority.Active().Certificate.NotAfter, Served: w.served, Etcd: w.etcd}
	w.mu.Unlock()
	for _, h := range w.ledger.Expected(now) {
		if h.Missed(now) {
			e.Missed++
		}
		first := &e.Client
		if h.IsMember() {
			first = &e.Member
		} else if now.After(h.NotAfter) {
			continue // it is missed, and not the next one any more
		}
		if first.IsZero() || h.NotAfter.Before(*first) {
			*first = h.NotAfter
		}
	}
	return e
}

// serve lets Prometheus read the metrics, until stop. A port that cannot be had is
// no reason not to sign: it is tried again.
func (w *watch) serve(ctx context.Context, address string, cluster *peers.Cluster, log zerolog.Logger) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", w.metrics.Handler())
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	background, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { w.run(background, cluster) })
	group.Go(func() {
		for {
			err := server.ListenAndServe()
			if errors.Is(err, http.ErrServerClosed) {
				return
			}
			log.Error().Err(err).Msg("metrics are not served; tried again in a minute")
			select {
			case <-background.Done():
				return
			case <-time.After(time.Minute):
			}
		}
	})
	return func() {
		cancel()
		_ = server.Close() // a scrape may be cut off
		group.Wait()
	}
}
