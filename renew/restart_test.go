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
	for what, test := range map[string]struct {
		at    time.Time // by the signer's clock, when the certificate was made
		waits bool
	}{"it lives": {now, true}, "it is of the future": {now.Add(time.Hour), false}} {
		t.Run(what, func(t *testing.T) {
			s := newSyncer(t, now, key)
			put(t, s.files.Trust, signer.EncodeCertificate(a.ca.Raw))
			put(t, s.files.Certificate, a.issue(t, test.at, key, "10.0.0.12"))
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
			if !errors.Is(err, peers.ErrAway) || strings.Contains(err.Error(), "a later run renews it first") == test.waits || (ctx.Err() != nil) != test.waits {
				t.Errorf("%v, %v", err, ctx.Err())
			}
		})
	}
}
