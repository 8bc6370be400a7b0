package renew

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/peers"
)

// restartInTurn waits until no other member is being restarted and all are well,
// restarts etcd, and keeps the turn until the cluster is well again.
func (s *syncer) restartInTurn(ctx context.Context, cas []*x509.Certificate, stale string) error {
	cluster, err := s.connect(s.others...)
	if err != nil {
		return err
	}
	defer cluster.Close() //nolint:errcheck // nothing is left to do on it
	turn, err := s.takeTurn(ctx, cluster)
	if err != nil {
		return fmt.Errorf("etcd has to start again (%s), and cannot: %w", stale, err)
	}
	err = s.restart(ctx, cluster, turn, cas, stale)
	// The others see for themselves whether this member is well.
	return errors.Join(err, turn.Release(ctx))
}

// takeTurn waits for the turn and a cluster that can do without this member.
func (s *syncer) takeTurn(ctx context.Context, cluster *peers.Cluster) (*peers.Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	var said time.Time
	for {
		turn, err := s.tryTurn(ctx, cluster)
		if err == nil {
			return turn, nil
		}
		// It may have run out meanwhile, or be of the future, by a clock that was ahead: this
		// run only keeps it from being renewed.
		if useless := s.useless(); useless != nil {
			return nil, fmt.Errorf("nobody can be asked by the certificate that is here: %w (%w)", useless, err)
		}
		if time.Since(said) > sayAgain {
			said = time.Now()
			s.say("waiting to restart etcd: %v", err)
		}
		if pause(ctx, lookAgain) != nil {
			return nil, err
		}
	}
}

// useless says why nobody accepts the certificate that is there, by this machine's clock.
func (s *syncer) useless() error {
	cas, caErr := s.files.CAs()
	key, keyErr := s.files.LoadKey()
	chain, err := s.files.Chain()
	if err := errors.Join(caErr, keyErr, err); err != nil {
		return err
	}
	return member.Lives(chain, cas, key, s.now())
}

// tryTurn takes the turn if the cluster is well: who cannot use it keeps nobody from it.
func (s *syncer) tryTurn(ctx context.Context, cluster *peers.Cluster) (*peers.Turn, error) {
	if err := cluster.Steady(ctx, s.member.Name); err != nil {
		return nil, err
	}
	turn, err := cluster.TakeTurn(ctx, s.now(), s.member.Name)
	if err != nil {
		return nil, err
	}
	if err := s.settled(ctx, cluster, turn); err != nil {
		return nil, errors.Join(err, turn.Release(ctx))
	}
	return turn, nil
}

// settled makes sure that the cluster is well for as long as etcd takes to count on
// a member, while the turn is held: one that comes and goes is no quorum's third.
func (s *syncer) settled(ctx context.Context, cluster *peers.Cluster, turn *peers.Turn) error {
	for began := time.Now(); ; {
		if err := cluster.Steady(ctx, s.member.Name); err != nil {
			return err
		}
		if err := turn.Hold(ctx); err != nil {
			return err
		}
		if time.Since(began) >= settle {
			return nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// keep holds the turn until ctx ends. It cannot be held without a leader, which a
// cluster of one or two has not just now; if it runs out, the others look whether
// all are well before they restart.
func keep(ctx context.Context, turn *peers.Turn) {
	for {
		_ = turn.Hold(ctx)
		if pause(ctx, lookAgain) != nil {
			return
		}
	}
}
