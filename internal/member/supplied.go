package member

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/wire"
)

// ErrSupplied is wrapped by what is wrong with certificates that an operator
// supplies.
var ErrSupplied = errors.New("the certificates that an operator supplies (manage: false)")

// Check says everything that is wrong with the certificates of this machine's
// member, whoever makes them.
func Check(m *config.Member, now time.Time) error {
	if !m.Manage {
		return CheckSupplied(m, now)
	}
	files := Files(m.Client)
	chain, chainErr := files.Chain()
	cas, casErr := files.CAs()
	key, keyErr := files.LoadKey()
	if err := multierror.Append(nil, chainErr, casErr, keyErr).ErrorOrNil(); err != nil {
		return err
	}
	if err := UseOf(m).Check(chain, cas, key, now); err != nil {
		return fmt.Errorf("%s: %w", files.Certificate, err)
	}
	return nil
}

// RefuseSupplied says what is wrong with the certificates of a member whose operator
// supplies them, such that the others would refuse it: etcd itself would start. The
// error wraps ErrSupplied.
func RefuseSupplied(m *config.Member, now time.Time) error {
	return eachPort(m, func(p suppliedPort) []error { return p.refused(m.Addresses[0], now) })
}

// CheckSupplied says what RefuseSupplied does, and what else should not be so.
func CheckSupplied(m *config.Member, now time.Time) error {
	return multierror.Append(nil, RefuseSupplied(m, now),
		eachPort(m, func(p suppliedPort) []error { return p.doubtful(m.Addresses[1:]) })).ErrorOrNil()
}

// suppliedPort is what an operator supplies for one of etcd's ports.
type suppliedPort struct {
	name  string
	files Files
	peer  bool // the others trust what this member trusts, and meet it as a client too
}

// eachPort gathers what look finds at both ports.
func eachPort(m *config.Member, look func(suppliedPort) []error) error {
	var problems *multierror.Error
	for _, port := range []suppliedPort{{"client", Files(m.Client), false}, {"peer", Files(m.Peer), true}} {
		for _, err := range look(port) {
			if err != nil {
				problems = multierror.Append(problems, fmt.Errorf("%w: the %s port's: %w", ErrSupplied, port.name, err))
			}
		}
	}
	return problems.ErrorOrNil()
}

func (p suppliedPort) refused(address wire.Address, now time.Time) []error {
	chain, chainErr := p.files.Chain()
	cas, casErr := p.files.CAs()
	key, keyErr := p.files.suppliedKey()
	if chainErr != nil || casErr != nil || keyErr != nil {
		return []error{chainErr, casErr, keyErr}
	}
	var problems []error
	say := func(err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", p.files.Certificate, err))
		}
	}
	if p.peer {
		say(Lives(chain, cas, key, now))
	} else {
		say(Fits(chain[0], key))
		// The CAs of the client port are for clients; by whom these know etcd is
		// nothing that this machine could see.
		say(Verify(chain, chain, x509.ExtKeyUsageServerAuth, now))
	}
	if err := chain[0].VerifyHostname(address.String()); err != nil {
		say(fmt.Errorf("%w: the others dial %s", err, address))
	}
	return problems
}

// doubtful says what etcd and the others put up with.
func (p suppliedPort) doubtful(further []wire.Address) []error {
	chain, chainErr := p.files.Chain()
	cas, casErr := p.files.CAs()
	if chainErr != nil || casErr != nil {
		return nil // that was said
	}
	var problems []error
	for _, ca := range cas {
		if !ca.IsCA {
			problems = append(problems, fmt.Errorf("%s: %s is not a CA", p.files.Trust, ca.Subject))
		}
	}
	for _, a := range further {
		if err := chain[0].VerifyHostname(a.String()); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w: member.yaml has it", p.files.Certificate, err))
		}
	}
	if info, err := os.Stat(p.files.Key); err == nil && info.Mode().Perm()&0o007 != 0 {
		problems = append(problems, fmt.Errorf("%s: mode %04o lets everybody at a private key: chmod o-rwx %s", p.files.Key, info.Mode().Perm(), p.files.Key))
	}
	return problems
}

// suppliedKey reads a private key as etcd does, whoever else may read it.
func (f Files) suppliedKey() (crypto.Signer, error) {
	data, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, err
	}
	return f.parseKey(data)
}
