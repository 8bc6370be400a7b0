package renew

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/crashpoint"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/peers"
)

// Times around a restart. etcd takes 8.3 s to stop while a client watches, and 7 s
// to serve clients when its first try to publish itself fails.
const (
	turnPatience = 5 * time.Minute  // for the others to have had their turn, and the cluster to be well
	backPatience = 2 * time.Minute  // for etcd to be back
	settle       = 5 * time.Second  // etcd refuses to count on a member for so long (HealthInterval)
	lookAgain    = 2 * time.Second  // between two looks at the cluster
	turnBudget   = 15 * time.Second // of etcd's own time limits, for one question
)

// reload lets etcd start again if that trusts, on either port, other CAs than the
// bundle has.
func (s *syncer) reload(ctx context.Context) error {
	state, err := unit.Get(ctx, member.EtcdUnit)
	if err != nil {
		return err
	}
	if err := unit.Ended(ctx, member.EtcdUnit); err != nil {
		return err
	}
	cas, err := s.files.CAs()
	if err != nil {
		return err
	}
	stale, err := s.stale(ctx, cas)
	if state.Active == "activating" {
		return s.reloadWaiting(ctx, stale, err)
	}
	if err != nil || stale == "" {
		return err
	}
	return s.restartInTurn(ctx, cas, stale)
}

// stale says at which port etcd trusts other CAs than it should, and which; empty:
// at none. A port that cannot be looked at is an error, beside what the other one
// shows.
func (s *syncer) stale(ctx context.Context, cas []*x509.Certificate) (string, error) {
	var found []string
	var problems []error
	show := s.pair()
	client, peer := member.Addresses(s.host())
	for _, address := range []string{client, peer} {
		served, err := member.Inspect(ctx, address, show)
		if err != nil {
			problems = append(problems, fmt.Errorf("looking at what etcd trusts: %w", err))
			continue
		}
		extra, missing := served.Difference(cas)
		if len(extra) > 0 {
			found = append(found, fmt.Sprintf("%s still trusts %s", address, strings.Join(extra, ", ")))
		}
		if len(missing) > 0 {
			found = append(found, fmt.Sprintf("%s does not trust %s yet", address, strings.Join(missing, ", ")))
		}
	}
	return strings.Join(found, "; "), errors.Join(problems...)
}

// pair is the member's certificate; nil if it is of no use.
func (s *syncer) pair() *tls.Certificate {
	pair, err := tls.LoadX509KeyPair(s.files.Certificate, s.files.Key)
	if err != nil {
		return nil
	}
	return &pair
}

// reloadWaiting is for an etcd that has started and is not ready. While it sees no
// leader nobody relies on it, and there is no quorum to lend it a turn: it may be
// that very trust that keeps it out.
func (s *syncer) reloadWaiting(ctx context.Context, stale string, trouble error) error {
	if !leaderless(ctx) {
		return fmt.Errorf("%w: etcd is starting", ErrRetry)
	}
	if stale == "" {
		return fmt.Errorf("%w: etcd waits for a quorum: look at the other members (%v)", ErrRetry, trouble)
	}
	s.say("etcd has no quorum, and %s: starting it again", stale)
	return unit.Restart(ctx, member.EtcdUnit)
}

// leaderless says whether the etcd on this machine says of itself that it sees no
// leader (its /health). One that does not say so counts as having one.
func leaderless(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, turnBudget)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+member.MetricsPort+"/health", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close() //nolint:errcheck // it is only read
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return err == nil && response.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), "NO LEADER")
}

// restartInTurn waits until no other member is being restarted and all are well,
// restarts etcd, and keeps the turn until the cluster is well again.
func (s *syncer) restartInTurn(ctx context.Context, cas []*x509.Certificate, stale string) error {
	credentials, err := s.files.Credentials()
	if err != nil {
		return err
	}
	cluster, err := peers.Connect([]string{member.LocalEndpoint}, credentials)
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
	said := ""
	for {
		turn, err := cluster.TakeTurn(ctx, s.now(), s.member.Name)
		if err == nil {
			if err = cluster.Steady(ctx); err == nil {
				return turn, nil
			}
			err = errors.Join(err, turn.Release(ctx))
		}
		if err.Error() != said {
			said = err.Error()
			s.say("waiting to restart etcd: %v", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrRetry, err)
		case <-time.After(lookAgain):
		}
	}
}

// restart restarts etcd, if the turn is held at this very moment, and waits until
// the cluster is as well as before.
func (s *syncer) restart(ctx context.Context, cluster *peers.Cluster, turn *peers.Turn, cas []*x509.Certificate, stale string) error {
	crashpoint.Here("turn")
	// The cluster was well when the turn was taken; that may be long ago for a
	// machine that stood still.
	if err := cluster.Steady(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrRetry, err)
	}
	if err := turn.Hold(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrRetry, err)
	}
	s.say("restarting etcd: %s", stale)
	if !turn.Fresh() {
		return fmt.Errorf("%w: this machine stood still while it had the turn to restart", ErrRetry)
	}
	if err := unit.Restart(ctx, member.EtcdUnit); err != nil {
		return err
	}
	began := time.Now()
	if err := s.awaitBack(ctx, cluster, turn, cas); err != nil {
		return fmt.Errorf("etcd was restarted and is not back: no other member is restarted until it is: %w", err)
	}
	s.say("etcd is back after %s, and trusts what it should", time.Since(began).Round(time.Second))
	return nil
}

// awaitBack waits until this member serves a majority's reads by itself with the
// right trust and the cluster is well, for as long as it takes to settle.
func (s *syncer) awaitBack(ctx context.Context, cluster *peers.Cluster, turn *peers.Turn, cas []*x509.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, backPatience)
	defer cancel()
	go keep(ctx, turn)
	var well time.Time
	for {
		err := s.back(ctx, cluster, cas)
		switch {
		case err != nil:
			well = time.Time{}
		case well.IsZero():
			well = time.Now()
		case time.Since(well) >= settle:
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// keep holds the turn until ctx ends. It cannot be held without a leader, which a
// cluster of one or two has not just now; if it runs out, the others look whether
// all are well before they restart.
func keep(ctx context.Context, turn *peers.Turn) {
	for {
		_ = turn.Hold(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookAgain):
		}
	}
}

// back says why this member is not what it was before its restart.
func (s *syncer) back(ctx context.Context, cluster *peers.Cluster, cas []*x509.Certificate) error {
	if err := unit.Ended(ctx, member.EtcdUnit); err != nil {
		return err
	}
	switch stale, err := s.stale(ctx, cas); {
	case err != nil:
		return err
	case stale != "":
		return errors.New(stale)
	}
	credentials, err := s.files.Credentials()
	if err != nil {
		return err
	}
	alone, err := peers.Connect([]string{member.LocalEndpoint}, credentials)
	if err != nil {
		return err
	}
	defer alone.Close() //nolint:errcheck // nothing is left to do on it
	if _, err := alone.Members(ctx); err != nil {
		return err
	}
	return cluster.Steady(ctx)
}
