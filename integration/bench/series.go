package main

import (
	"context"
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

// add measures one round.
func (s *series) add(a *arena, pid int, l load) error {
	var before time.Duration
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	most := peak(ctx, pid)
	took, elapsed, err := a.run(l, func() (err error) {
		if !l.shared { // its child has begun, and is counted as it runs
			if err := settled(pid); err != nil {
				return err
			}
		}
		before, err = cpu(pid)
		return err
	})
	if err != nil {
		return err
	}
	cancel()
	if err := settled(pid); err != nil {
		return err
	}
	after, err := cpu(pid)
	if err != nil {
		return err
	}
	s.count += l.n
	s.cpu = append(s.cpu, us(after-before)/float64(l.n))
	s.perSecond = append(s.perSecond, float64(l.n)/elapsed.Seconds())
	for _, one := range took {
		s.took = append(s.took, ms(one))
	}
	s.peak = max(s.peak, most())
	return nil
}

func (s *series) certificate(server, connection string, kex exchange) certificate {
	return certificate{
		Server: server, Connection: connection, Exchange: string(kex), Count: s.count,
		CPU: median(s.cpu), PerSecond: median(s.perSecond), P50: median(s.took), P99: quantile(s.took, 0.99), Peak: mb(s.peak), Rounds: s.cpu,
	}
}
