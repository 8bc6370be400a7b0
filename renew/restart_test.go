package renew

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// Nobody waits for the turn by a certificate that is of no use: a later run has to renew
// it. By one that lives, sync waits for etcd.
func TestTakeTurnGivesUp(t *testing.T) {
	now := time.Now()
	a := newAuthority(t, now.Add(-time.Hour))
	key := newKey(t)
	const later = 1000 * time.Hour // than any certificate lives
	for what, test := range map[string]struct {
		clock []time.Duration // ahead of when it was made, at each look; the last one stays
		says  string          // none: it waits
	}{
		"it lives":            {[]time.Duration{0}, ""},
		"it is of the future": {[]time.Duration{-time.Hour}, "is valid only from"},
		"it has run out":      {[]time.Duration{later}, "expired"},
		"it runs out":         {[]time.Duration{0, later}, "expired"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newSyncer(t, now, key)
			put(t, s.files.Trust, signer.EncodeCertificate(a.ca.Raw))
			put(t, s.files.Certificate, a.issue(t, now, key, "10.0.0.12"))
			looks := 0
			s.now = func() time.Time {
				looks++
				return now.Add(test.clock[min(looks, len(test.clock))-1])
			}
			credentials, err := s.files.Credentials()
			if err != nil {
				t.Fatal(err)
			}
			cluster, err := peers.Connect([]string{"https://127.0.0.1:1"}, credentials)
			if err != nil {
				t.Fatal(err)
			}
			defer cluster.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			_, err = s.takeTurn(ctx, cluster)
			if !errors.Is(err, peers.ErrAway) || !strings.Contains(err.Error(), test.says) || (ctx.Err() != nil) != (test.says == "") {
				t.Errorf("%v, %v", err, ctx.Err())
			}
		})
	}
}
