package main

import (
	"crypto/x509"
	"time"
)

// series is what the rounds of one measurement gave.
type series struct {
	count     int
	cpu       []float64 // microseconds a certificate
	perSecond []float64
	took      []float64 // milliseconds, of each certificate
	peak      int64     // bytes
}

// add measures one round, after an eighth of it that does not count: the server
// was at rest while others had their turn.
func (s *series) add(c *contestant, pid int, kex exchange, shared bool, n int, requests []*request, roots *x509.CertPool) error {
	if _, _, err := load(c.dial, kex, shared, max(1, n/8), requests, roots); err != nil {
		return err
	}
	before, err := cpu(pid)
	if err != nil {
		return err
	}
	var (
		took    []time.Duration
		elapsed time.Duration
	)
	most, err := withPeak(pid, func() error {
		took, elapsed, err = load(c.dial, kex, shared, n, requests, roots)
		return err
	})
	if err != nil {
		return err
	}
	if err := settled(pid); err != nil {
		return err
	}
	after, err := cpu(pid)
	if err != nil {
		return err
	}
	s.count += n
	s.cpu = append(s.cpu, us(after-before)/float64(n))
	s.perSecond = append(s.perSecond, float64(n)/elapsed.Seconds())
	for _, one := range took {
		s.took = append(s.took, ms(one))
	}
	s.peak = max(s.peak, most)
	return nil
}

func (s *series) certificate(server, connection string, kex exchange) certificate {
	return certificate{
		Server: server, Connection: connection, Exchange: string(kex), Count: s.count,
		CPU: median(s.cpu), PerSecond: median(s.perSecond), P50: median(s.took), P99: quantile(s.took, 0.99), Peak: mb(s.peak), rounds: s.cpu,
	}
}
