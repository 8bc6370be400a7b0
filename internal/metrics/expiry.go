package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Expiries are when things expire, the nearest of each kind; zero: there is none.
type Expiries struct {
	CA     time.Time // the active generation
	Member time.Time // members' certificates as they were issued last
	Served time.Time // what etcd serves at its members' client ports
	Client time.Time // clients' certificates that live
	Missed int       // names that should have renewed and did not
	Etcd   bool      // it could be used a moment ago
}

// expiryCollector asks anew at each scrape, since time goes on between.
type expiryCollector func(now time.Time) Expiries

func expiry(kind, help string) *prometheus.Desc {
	return prometheus.NewDesc("signerd_"+kind+"_expiry_seconds", "Seconds until "+help+".", nil, nil)
}

var (
	caExpiry     = expiry("ca", "the CA that signs expires")
	memberExpiry = expiry("member", "the first of the members' certificates expires, as the ledger has them")
	servedExpiry = expiry("served", "the first of the certificates expires that etcd serves to its clients")
	clientExpiry = expiry("client", "the first of the clients' certificates expires")
	missed       = prometheus.NewDesc("signerd_missed_renewals", "Names that should have renewed their certificate and did not.", nil, nil)
	etcdUp       = prometheus.NewDesc("signerd_etcd_up", "Whether etcd could be used a moment ago, and this signer is the one that signs.", nil, nil)
)

func (expiryCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{caExpiry, memberExpiry, servedExpiry, clientExpiry, missed, etcdUp} {
		descriptions <- d
	}
}

func (c expiryCollector) Collect(metrics chan<- prometheus.Metric) {
	now := time.Now()
	e := c(now)
	gauge := func(d *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	for d, until := range map[*prometheus.Desc]time.Time{caExpiry: e.CA, memberExpiry: e.Member, servedExpiry: e.Served, clientExpiry: e.Client} {
		if !until.IsZero() {
			gauge(d, until.Sub(now).Seconds())
		}
	}
	gauge(missed, float64(e.Missed))
	up := 0.0
	if e.Etcd {
		up = 1
	}
	gauge(etcdUp, up)
}
