package rotation

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// The reasons not to sign for a cluster. Their texts may be shown to the client.
var (
	// ErrSuperseded is wrapped when another signer with the same CA took over.
	ErrSuperseded = errors.New("another signer took over")
	// ErrForeign is wrapped when the cluster has another CA.
	ErrForeign = errors.New("the cluster has another CA")
	// ErrUnclaimed is wrapped while etcd does not know a signer that was restored.
	ErrUnclaimed = errors.New("this signer was restored from a backup, and etcd has not been told yet")
	// ErrStrange is wrapped when what was seen of etcd trusts another CA, which nobody
	// has vouched for: it is no reason to stop, but one not to begin.
	ErrStrange = errors.New("etcd trusts another CA")
)

// Forbids says whether an error of Claim means that nothing must be signed here, until a
// person has decided.
func Forbids(err error) bool { return errors.Is(err, ErrSuperseded) || errors.Is(err, ErrForeign) }

// Stops says whether an error of Claim means that nothing must be signed here for now.
func Stops(err error) bool { return Forbids(err) || errors.Is(err, ErrUnclaimed) }

// Claim makes sure that this signer signs for the cluster, and that etcd says so. The
// error wraps ErrSuperseded, ErrForeign, ErrUnclaimed or ErrStrange, or peers.ErrAway or
// peers.ErrBusy, which say nothing.
func (d *Driver) Claim(ctx context.Context) error {
	// In the middle of a step etcd has the CA that is to sign already, and we the one before.
	d.claiming.Lock()
	defer d.claiming.Unlock()
	authority := d.signer.Authority()
	if err := Superseded(authority); err != nil {
		return noteSuperseded(authority, err) // the disk may have been full
	}
	if authority.Restored() || authority.Untold() {
		err := d.takeOver(ctx)
		if err != nil && authority.Restored() {
			return fmt.Errorf("%w: nothing is signed before: %w", ErrUnclaimed, err)
		}
		return err
	}
	err := d.announce(ctx, authority.Active())
	if errors.Is(err, ErrSuperseded) {
		return noteSuperseded(authority, err) // it is to be so when etcd cannot be asked
	}
	return err
}

// Superseded says that another signer was seen to have taken over from this one, and what
// helps; nil: none was.
func Superseded(a *signer.Authority) error {
	if !a.Superseded() {
		return nil
	}
	return fmt.Errorf("%w, or signerd ca adopt broke off: that was seen before; if this one is to sign: %s", ErrSuperseded, Adopting(a.Active().Fingerprint()))
}

// noteSuperseded keeps that another signer took over, and gives why that is so, in one line.
func noteSuperseded(a *signer.Authority, why error) error {
	err := a.NoteSuperseded()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno // without the file's name, which is another one at each try
	}
	if err != nil {
		return fmt.Errorf("%w (that cannot be written down here: %w)", why, err)
	}
	return why
}

// Adopting is what a person types on its machine for a signer to sign, whatever etcd says:
// with the fingerprint of its CA, and further flags.
func Adopting(fingerprint string, flags ...string) string {
	adopt := append([]string{"signerd ca adopt --fingerprint", fingerprint}, flags...)
	return "systemctl stop signerd; " + strings.Join(adopt, " ") + "; systemctl start signerd"
}

// takeOver is the first claim of a signer that was restored, or adopted without etcd, which
// somebody has decided: whoever signed before signs no more. But a backup of before a
// rotation has the wrong CA.
func (d *Driver) takeOver(ctx context.Context) error {
	there, revision, err := d.asked(ctx)
	if err != nil {
		return err
	}
	if active := d.signer.Authority().Active().Fingerprint(); there != nil && there.Fingerprint != active && !follows(d.trust, there.Fingerprint) {
		return fmt.Errorf("%w: etcd has %q, and here %s signs: is this of before a rotation? Restore a later backup, or if this CA is right: %s",
			ErrForeign, there.Fingerprint, active, Adopting(active))
	}
	return d.begin(ctx, there, revision)
}

// Adopt makes this signer the one that signs for the cluster, whatever etcd says. It
// begins a new tenure, so that a signer that signed before learns it. Until etcd has it
// nothing is signed here.
func (d *Driver) Adopt(ctx context.Context) error {
	there, revision, err := d.cluster.Signing(ctx)
	if err != nil {
		return err
	}
	authority := d.signer.Authority()
	if authority.Restored() {
		return d.begin(ctx, there, revision)
	}
	// Or a tenure that etcd never got would count at the next start.
	if err := authority.NoteSuperseded(); err != nil {
		return err
	}
	if err := d.begin(ctx, there, revision); err != nil {
		return fmt.Errorf("%w; nothing is signed here until adopt succeeds", err)
	}
	return nil
}

// begin puts a new tenure in the place of what etcd has.
func (d *Driver) begin(ctx context.Context, there *peers.Signing, revision int64) error {
	var epoch uint64
	if there != nil {
		epoch = there.Epoch
	}
	authority := d.signer.Authority()
	if err := authority.BeginTenure(epoch); err != nil {
		return err
	}
	if err := d.tell(ctx, revision, d.signing(authority.Active()), true); err != nil {
		return err
	}
	return authority.TakeOver(d.now())
}

// tell says in etcd that this signer signs. In a tenure that is new there the ledger that
// is here counts from now on, whatever head etcd has.
func (d *Driver) tell(ctx context.Context, revision int64, ours peers.Signing, newTenure bool) error {
	var head []byte
	if newTenure {
		var err error
		if head, err = json.Marshal(d.signer.Ledger().Head()); err != nil {
			return err
		}
	}
	told, err := d.cluster.SetSigning(ctx, revision, ours, head)
	if err == nil {
		d.claimed.Store(told)
	}
	return err
}

// signing is what etcd is to say where a generation of ours signs.
func (d *Driver) signing(active *signer.Generation) peers.Signing {
	tenure := d.signer.Authority().Tenure()
	return peers.Signing{Fingerprint: active.Fingerprint(), Epoch: tenure.Epoch, Signer: tenure.Signer}
}

// announce says in etcd that active signs from now on. A step calls it, so that it changes
// nothing of the Authority.
func (d *Driver) announce(ctx context.Context, active *signer.Generation) error {
	there, revision, err := d.asked(ctx)
	if err != nil {
		return err
	}
	ours := d.signing(active)
	switch {
	case there == nil:
		return d.tell(ctx, revision, ours, false) // a head that is there has somebody else put there
	case *there == ours:
		d.claimed.Store(revision)
		return nil
	}
	if err := judge(*there, ours, d.signer.Authority().Generations(), d.trust); err != nil {
		return err
	}
	return d.tell(ctx, revision, ours, there.Epoch != ours.Epoch || there.Signer != ours.Signer)
}

// asked gives what etcd says of who signs. One that cannot be asked may be looked at.
func (d *Driver) asked(ctx context.Context) (*peers.Signing, int64, error) {
	there, revision, err := d.cluster.Signing(ctx)
	if err != nil {
		if why := d.strange(ctx); why != nil {
			return nil, 0, why
		}
	}
	return there, revision, err
}

// known are the CAs that are ours, and those that the configuration trusts: the CA of a
// lost key among them is one that this one follows.
func (d *Driver) known() []*x509.Certificate {
	all := slices.Clone(d.trust)
	for _, g := range d.signer.Authority().Generations() {
		all = append(all, g.Certificate)
	}
	return all
}

// follows says whether a CA is one that the configuration trusts: its key is lost, and this
// signer follows.
func follows(trust []*x509.Certificate, fingerprint string) bool {
	return slices.ContainsFunc(trust, func(c *x509.Certificate) bool { return signer.Fingerprint(c) == fingerprint })
}

// judge says why a signer must not sign, given who does by etcd, its own CAs, and those
// that its configuration trusts.
func judge(there, ours peers.Signing, generations []*signer.Generation, trust []*x509.Certificate) error {
	if !slices.ContainsFunc(generations, func(g *signer.Generation) bool { return g.Fingerprint() == there.Fingerprint }) {
		if follows(trust, there.Fingerprint) {
			return nil
		}
		return fmt.Errorf("%w: etcd has %q, and this signer has %s: if that one's key is lost and this one follows it, name its certificate in trust until etcd knows; if etcd was restored from a backup and this CA is right: %s",
			ErrForeign, there.Fingerprint, ours.Fingerprint, Adopting(ours.Fingerprint))
	}
	if there.Epoch > ours.Epoch || there.Epoch == ours.Epoch && there.Signer != ours.Signer {
		return fmt.Errorf("%w: etcd has the signer %s in epoch %d, and this one is %s in epoch %d: disable signerd here and ask the other one; if this one is to sign: %s",
			ErrSuperseded, there.Signer, there.Epoch, ours.Signer, ours.Epoch, Adopting(ours.Fingerprint))
	}
	return nil
}

// lookTimeout bounds the look at an etcd that cannot be asked.
const lookTimeout = time.Second

// strange says why an etcd that cannot be asked is another CA's: all of its ports that
// can be seen trust none that is known here, so that nobody could use what is signed.
func (d *Driver) strange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	known := d.known()
	var others []string
	for _, endpoint := range d.cluster.Endpoints() {
		u, err := url.Parse(endpoint)
		if err != nil {
			return err
		}
		served, err := peers.Inspect(ctx, u.Host, nil)
		if err != nil {
			continue
		}
		trusted, missing := served.Difference(known)
		if len(missing) < len(known) {
			return nil
		}
		others = trusted
	}
	if others == nil {
		return nil
	}
	return fmt.Errorf("%w: %s, and this signer has %s: was a CA made anew here? Bring that CA back, from its saved key (signerd ca import); if that is lost, name its certificate in trust",
		ErrStrange, strings.Join(others, ", "), d.signer.Authority().Active().Certificate.Subject)
}
