package renew

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signerd/signerd/internal/crashpoint"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/peers"
)

// Times around a restart. etcd takes 8.3 s to stop while a client watches, and 7 s
// to serve clients when its first try to publish itself fails.
const (
	turnPatience = 5 * time.Minute  // for the others to have had their turn, and the cluster to be well
	lookAgain    = 2 * time.Second  // between two looks at the cluster
	sayAgain     = 30 * time.Second // between two sentences on what is waited for
	healthLimit  = 15 * time.Second // for etcd to answer /health, which asks the cluster
)

// restartStale lets etcd start again if that trusts, on either port, other CAs than the
// bundle has.
func (s *syncer) restartStale(ctx context.Context) error {
	state, err := unit.Alive(ctx, member.EtcdUnit)
	if err != nil {
		return err
	}
	cas, err := s.files.CAs()
	if err != nil {
		return err
	}
	stale, err := s.stale(ctx, cas)
	if stale != "" {
		if err := s.futile(state, stale); err != nil {
			return err
		}
	}
	if state.Active == "activating" {
		return s.restartWaiting(ctx, stale, err)
	}
	switch {
	case err != nil && stale != "":
		return fmt.Errorf("etcd has to start again (%s), and cannot: %w", stale, err)
	case err != nil || stale == "":
		return err
	}
	return s.restartInTurn(ctx, cas, stale)
}

// restartedPath has, until the machine is restarted, which run of etcd sync has
// started, and the fingerprint of the CAs that it was to load.
const restartedPath = "/run/signerd-sync.restarted"

// futile says why a restart cannot help: this very run of etcd was started for
// these very CAs.
func (s *syncer) futile(state unit.State, stale string) error {
	bundle, err := os.ReadFile(s.files.Trust)
	if err != nil {
		return err
	}
	last, err := os.ReadFile(restartedPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if string(last) != startedFor(state, bundle) {
		return nil // another run, or other CAs
	}
	return fmt.Errorf("%w: it was restarted for %s, and %s: is that its ETCD_TRUSTED_CA_FILE and ETCD_PEER_TRUSTED_CA_FILE?", ErrElsewhere, s.files.Trust, stale)
}

func startedFor(state unit.State, bundle []byte) string {
	return fmt.Sprintf("%s %x\n", state.Run, sha256.Sum256(bundle))
}

// run is a run of etcd that is to end for the CAs that are in place.
type run struct {
	id     string
	bundle []byte
}

func (s *syncer) present(ctx context.Context) (run, error) {
	bundle, err := os.ReadFile(s.files.Trust)
	if err != nil {
		return run{}, err
	}
	state, err := unit.Get(ctx, member.EtcdUnit)
	return run{state.Run, bundle}, err
}

// awaitNext waits until another run has begun, and writes down for which CAs.
func (r run) awaitNext(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, backPatience)
	defer cancel()
	for {
		now, err := unit.Get(ctx, member.EtcdUnit)
		if err != nil {
			return err
		}
		if now.Run != r.id && now.Run != "" {
			return durable.Replace(restartedPath, []byte(startedFor(now, r.bundle)), 0o644)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("%w: systemd does not start it", ErrNotBack)
		}
	}
}

// stale says at which port etcd trusts other CAs than it should, and which; empty:
// at none. A port that cannot be looked at is an error, beside what the other one
// shows.
func (s *syncer) stale(ctx context.Context, cas []*x509.Certificate) (string, error) {
	var found []string
	var problems []error
	show, _ := s.files.Pair() // without one there is less to see
	client, peer := member.Addresses(s.host())
	for _, address := range []string{client, peer} {
		served, err := peers.Inspect(ctx, address, show)
		if err != nil {
			problems = append(problems, fmt.Errorf("looking at what etcd trusts: %w", err))
			continue
		}
		extra, missing := member.Stale(served, cas)
		if len(extra) > 0 {
			found = append(found, fmt.Sprintf("%s still trusts %s", address, strings.Join(extra, ", ")))
		}
		if len(missing) > 0 {
			found = append(found, fmt.Sprintf("%s does not trust %s yet", address, strings.Join(missing, ", ")))
		}
	}
	return strings.Join(found, "; "), errors.Join(problems...)
}

// restartWaiting is for an etcd that has started and is not ready. While it sees no
// leader nobody relies on it, and there is no quorum to lend it a turn: it may be
// that very trust that keeps it out.
func (s *syncer) restartWaiting(ctx context.Context, stale string, trouble error) error {
	if !leaderless(ctx) {
		return errors.New("etcd is starting, or does not say at http://127.0.0.1:" + member.MetricsPort + "/health whether it sees a leader: a later run looks again")
	}
	if stale == "" {
		return fmt.Errorf("etcd waits for a quorum: look at the other members (%v)", trouble)
	}
	before, err := s.present(ctx)
	if err != nil {
		return err
	}
	s.say("etcd has no quorum, and %s: starting it again", stale)
	if err := unit.Restart(ctx, member.EtcdUnit); err != nil {
		return err
	}
	return before.awaitNext(ctx)
}

// leaderless says whether the etcd on this machine says of itself that it sees no
// leader (its /health). One that does not say so counts as having one.
func leaderless(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
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

// connect reaches etcd by this member's own and, if they are named, by others, since
// its own may be cut off from them, or trust too little to let its own certificate in.
func (s *syncer) connect(others ...string) (*peers.Cluster, error) {
	credentials, err := s.files.Credentials()
	if err != nil {
		return nil, err
	}
	return peers.Connect(slices.Concat([]string{member.ClientURL(s.host())}, others), credentials)
}

// restart restarts etcd, if the turn is held at this very moment, and waits until
// the cluster is as well as before.
func (s *syncer) restart(ctx context.Context, cluster *peers.Cluster, turn *peers.Turn, cas []*x509.Certificate, stale string) error {
	crashpoint.Here("turn")
	// The turn was taken, and the cluster was well: that may be long ago for a
	// machine that stood still. The look takes time too, so that the turn is held
	// before and after it.
	if err := turn.Hold(ctx); err != nil {
		return err
	}
	if err := cluster.Steady(ctx, s.member.Name); err != nil {
		return err
	}
	if err := turn.Hold(ctx); err != nil {
		return err
	}
	crashpoint.Here("held")
	before, err := s.present(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	held, stop := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	defer func() { stop(); keeping.Wait() }()
	if !turn.Fresh() {
		return fmt.Errorf("%w: the turn to restart ran out: this machine stood still while it had it", peers.ErrBusy)
	}
	keeping.Go(func() { keep(held, turn) })
	s.say("restarting etcd: %s", stale)
	if err := unit.Restart(ctx, member.EtcdUnit); err != nil {
		return err
	}
	if err := before.awaitNext(ctx); err != nil {
		return err
	}
	if err := s.awaitBack(ctx, cluster, cas); err != nil {
		return fmt.Errorf("%w: no other member is restarted until it is: %w", ErrNotBack, err)
	}
	s.say("etcd is back after %s, and trusts what it should", time.Since(began).Round(time.Second))
	return nil
}

// awaitBack waits until this member serves a majority's reads by itself with the
// right trust and the cluster is well, for as long as it takes to settle.
func (s *syncer) awaitBack(ctx context.Context, cluster *peers.Cluster, cas []*x509.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, backPatience)
	defer cancel()
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
		if ended := pause(ctx, time.Second); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

// back says why this member is not what it was before its restart.
func (s *syncer) back(ctx context.Context, cluster *peers.Cluster, cas []*x509.Certificate) error {
	if _, err := unit.Alive(ctx, member.EtcdUnit); err != nil {
		return err
	}
	switch stale, err := s.stale(ctx, cas); {
	case err != nil:
		return err
	case stale != "":
		return errors.New(stale)
	}
	alone, err := s.connect()
	if err != nil {
		return err
	}
	defer alone.Close() //nolint:errcheck // nothing is left to do on it
	if _, err := alone.Members(ctx); err != nil {
		return err
	}
	if err := cluster.Steady(ctx, ""); err != nil {
		return fmt.Errorf("this member is, but the cluster is not: %w", err)
	}
	return nil
}
