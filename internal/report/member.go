package report

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// A CA is to be rotated when a tenth of its life is left. A member's certificate
// is renewed when two thirds are, so that at a half something is wrong; one that an
// operator supplies has time until a tenth.
const (
	caWarns       = 10
	memberWarns   = 2
	suppliedWarns = 10
)

// Member looks at this machine as a member: the CAs it trusts, its certificates,
// what its etcd really serves, and whether it is renewed.
func Member(ctx context.Context, m *config.Member, now time.Time) []Finding {
	all := certificates(m, m.Client, now)
	if m.Peer != m.Client {
		all = append(all, certificates(m, m.Peer, now)...)
	}
	if m.Manage {
		all = append(all, renewal(ctx)...)
	} else {
		all = append(all, Broken("certificate", "that an operator supplies", member.CheckSupplied(m, now))...)
	}
	client, peer := member.Addresses(m.Addresses[0].String())
	all = append(all, served(ctx, client, m, m.Client, now)...)
	return append(all, served(ctx, peer, m, m.Peer, now)...)
}

// part is what part of its life a certificate may have left before somebody looks:
// who supplies certificates by hand renews them late.
func part(m *config.Member) int {
	if m.Manage {
		return memberWarns
	}
	return suppliedWarns
}

// certificates looks at the files of one port, or of both.
func certificates(m *config.Member, paths config.MemberFiles, now time.Time) []Finding {
	files := member.Files(paths)
	cas, err := files.CAs()
	all := Broken("CAs", files.Trust, err)
	for _, ca := range cas {
		all = append(all, expiring("CA", signer.Fingerprint(ca)[:16], ca, now, caWarns, replaceCA))
	}
	chain, err := files.Chain()
	if err != nil {
		return append(all, Broken("certificate", files.Certificate, err)...)
	}
	f := expiring("certificate", files.Certificate, chain[0], now, part(m), "it should have been renewed long ago")
	if m.Manage {
		key, err := files.LoadKey()
		if err == nil {
			err = member.UseOf(m).Check(chain, cas, key, now)
		}
		if err != nil {
			f.State, f.Says = Critical, err.Error()
		} else if f.Says != "" {
			f.Says += ": signerd sync says why it was not"
		}
	}
	return append(all, f)
}

// served looks at what etcd serves at a port, which need not be what is in the
// files.
func served(ctx context.Context, address string, m *config.Member, paths config.MemberFiles, now time.Time) []Finding {
	files := member.Files(paths)
	show, _ := files.Pair() // without one there is less to see
	s, err := peers.Inspect(ctx, address, show)
	if err != nil {
		return Broken("served", address, err)
	}
	leaf := s.Chain[0]
	f := expiring("served", address, leaf, now, part(m), "etcd serves it from a file that is not renewed")
	cas, err := files.CAs()
	if err != nil {
		return []Finding{f} // that is a finding of its own
	}
	if err := member.Verify(s.Chain, cas, x509.ExtKeyUsageServerAuth, now); err != nil {
		f.State, f.Says = Critical, err.Error()
		return []Finding{f}
	}
	if extra, missing := member.Stale(s, cas); len(extra)+len(missing) > 0 {
		f.State = max(f.State, Warning)
		f.Says = "etcd has not loaded the CAs of " + files.Trust + " yet"
		if len(extra) > 0 {
			f.Says += "; it still trusts " + strings.Join(extra, ", ")
		}
		if len(missing) > 0 {
			f.Says += "; it does not trust " + strings.Join(missing, ", ")
		}
		f.Says += ": signerd sync restarts it, one member at a time"
	}
	return []Finding{f}
}

// renewal looks at whether signerd sync runs, and how it ended.
func renewal(ctx context.Context) []Finding {
	if !unit.Running() {
		return nil
	}
	timer, err := unit.Get(ctx, member.SyncTimer)
	if err == nil && timer.Active != "active" {
		err = errors.New("it does not run, and nothing renews this member: systemctl enable --now " + member.SyncTimer)
	}
	if err != nil {
		return Broken("renewal", member.SyncTimer, err)
	}
	run, err := unit.Get(ctx, member.SyncService)
	switch {
	case err != nil:
		return Broken("renewal", member.SyncService, err)
	case run.Sub == "auto-restart" && run.Retries == 0: // the signer may be starting, say
		return []Finding{found(OK, "renewal", member.SyncService, "its last run failed, and is tried again within a minute")}
	case run.Active == "failed", run.Sub == "auto-restart", run.Active == "activating" && run.Retries > 0:
		return []Finding{found(Warning, "renewal", member.SyncService, "its last run failed: journalctl -u signerd-sync: "+unit.Tail(ctx, member.SyncService, 1))}
	}
	return []Finding{found(OK, "renewal", member.SyncService, "")}
}
