// Package renew keeps this machine a valid member of its etcd cluster: it takes
// the trust bundle from a signer, has the member's certificate issued again long
// before it expires, and lets etcd start again when that trusts other CAs than it
// should, one member of the cluster at a time.
//
// A new certificate is a renamed file: etcd reads it at the next handshake. CAs
// are read when etcd starts.
package renew

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
)

// The classes of failure that callers tell apart, beside those of sshclient. Any
// other may pass by itself.
var (
	// ErrClock is wrapped when this machine's clock is not the signer's.
	ErrClock = errors.New("the clocks differ")
	// ErrNotBack is wrapped when etcd was restarted and is not well again.
	ErrNotBack = errors.New("etcd was restarted and is not back")
	// ErrElsewhere is wrapped when etcd does not load the CAs that are kept here.
	ErrElsewhere = errors.New("etcd loads its CAs from elsewhere")
)

// lockPath keeps two runs apart.
const lockPath = "/run/signerd-sync.lock"

// Observer is told, in a sentence, what is done and what is waited for.
type Observer func(sentence string)

// Sync makes this member's files and its etcd what they should be. What one part
// cannot do does not keep the other from its work: a certificate is renewed
// without quorum, and etcd is started again without a signer.
func Sync(ctx context.Context, m *config.Member, observe Observer) error {
	if !m.Manage {
		return member.CheckSupplied(m, time.Now())
	}
	release, err := durable.Lock(lockPath)
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("another signerd sync is running: %w", err)
	} else if err != nil {
		return err
	}
	defer release() //nolint:errcheck // the process ends
	if err := errors.Join(durable.Sweep(m.Client.Certificate), durable.Sweep(m.Client.Trust)); err != nil {
		return err
	}
	s := &syncer{member: m, files: member.Files(m.Client), observe: observe, now: time.Now}
	renewed := s.renew(ctx)
	problems := multierror.Append(nil, renewed)
	// By a clock that is wrong a member that starts would take the others'
	// certificates for not valid yet, or for expired.
	if !errors.Is(renewed, ErrClock) {
		problems = multierror.Append(problems, s.restartStale(ctx))
	}
	return problems.ErrorOrNil()
}

// syncer is one run of Sync.
type syncer struct {
	member  *config.Member
	files   member.Files
	observe Observer
	now     func() time.Time
	others  []string // client URLs of members, as the signer has them
}

func (s *syncer) say(format string, args ...any) {
	s.observe(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "))
}

// pause waits for a while, or as long as ctx lives: its error then.
func pause(ctx context.Context, while time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(while):
		return nil
	}
}

// host is where the others dial this member.
func (s *syncer) host() string { return s.member.Addresses[0].String() }
