// Package metrics shows what signerd counts, and what is about to expire, to
// Prometheus. No label has a name in it that a client chose.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signerd/signerd/internal/version"
	"github.com/signerd/signerd/internal/wire"
)

// Metrics counts, and serves what it has counted.
type Metrics struct {
	registry    *prometheus.Registry
	connections *prometheus.CounterVec
	commands    *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	commits     prometheus.Histogram
}

// New makes a Metrics. expiries is asked at each scrape.
func New(expiries func(now time.Time) Expiries) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signerd_connections_total", Help: "SSH connections, by how they went: login, denied, limited, health_check, or ended before login.",
		}, []string{"outcome"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signerd_commands_total", Help: "Commands, by what they asked for and their exit status; client and member are certificates.",
		}, []string{"command", "status"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signerd_refusals_total", Help: "Commands that did not end with status 0, by the reason.",
		}, []string{"reason"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signerd_ledger_commit_seconds", Help: "Time that a batch of the ledger took to be on disk.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
	}
	for _, reason := range []string{"internal", "ledger"} {
		m.refusals.WithLabelValues(reason) // 0 now, so that the first one is an increase
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "signerd_build_info", Help: "1; its label has the version.", ConstLabels: prometheus.Labels{"version": version.String()},
	})
	build.Set(1)
	m.registry.MustRegister(m.connections, m.commands, m.refusals, m.commits, build, expiryCollector(expiries),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Connection counts a connection.
func (m *Metrics) Connection(outcome string) { m.connections.WithLabelValues(outcome).Inc() }

// Command counts a command; reason is empty for one that was done.
func (m *Metrics) Command(command string, status wire.Status, reason string) {
	m.commands.WithLabelValues(command, strconv.Itoa(int(status))).Inc()
	if reason != "" {
		m.refusals.WithLabelValues(reason).Inc()
	}
}

// Commit times one batch of the ledger, from the call until the end.
func (m *Metrics) Commit() (end func()) {
	began := time.Now()
	return func() { m.commits.Observe(time.Since(began).Seconds()) }
}
