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
	"github.com/signerd/signerd/signer"
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
	var problems *multierror.Error
	for _, err := range present(chainErr, casErr, keyErr) {
		problems = multierror.Append(problems, err)
	}
	if problems == nil {
		if err := UseOf(m).Check(chain, cas, key, now); err != nil {
			problems = multierror.Append(problems, fmt.Errorf("%s: %w", files.Certificate, err))
		}
	}
	return problems.ErrorOrNil()
}

// CheckSupplied says everything that is wrong with the certificates of a member
// whose operator supplies them: etcd itself would start with most of it, and then
// be refused by the others with a word or two. The error wraps ErrSupplied.
func CheckSupplied(m *config.Member, now time.Time) error {
	var problems *multierror.Error
	check := func(port string, files config.MemberFiles, usages ...x509.ExtKeyUsage) {
		for _, err := range checkFiles(Files(files), m.Addresses, usages, now) {
			problems = multierror.Append(problems, fmt.Errorf("%w: the %s port's: %w", ErrSupplied, port, err))
		}
	}
	// etcd's JSON gateway shows the client port's certificate to etcd itself, but
	// gRPC works without (etcd's documentation, Transport security model).
	check("client", m.Client, x509.ExtKeyUsageServerAuth)
	check("peer", m.Peer, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	return problems.ErrorOrNil()
}

func checkFiles(files Files, addresses []wire.Address, usages []x509.ExtKeyUsage, now time.Time) []error {
	chain, chainErr := files.Chain()
	cas, casErr := files.CAs()
	key, keyErr := files.loadSupplied()
	if chainErr != nil || casErr != nil || keyErr != nil {
		return present(chainErr, casErr, keyErr)
	}
	var problems []error
	if err := Fits(chain[0], key); err != nil {
		problems = append(problems, fmt.Errorf("%s and %s: %w", files.Certificate, files.Key, err))
	}
	for _, ca := range cas {
		if !ca.IsCA {
			problems = append(problems, fmt.Errorf("%s: %s is not a CA", files.Trust, ca.Subject))
		}
	}
	for _, usage := range usages {
		if err := Verify(chain, cas, usage, now); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", files.Certificate, err))
			break // the second one says the same, but for usages
		}
	}
	for _, a := range addresses {
		if err := chain[0].VerifyHostname(a.String()); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w: the others dial %s", files.Certificate, err, a))
		}
	}
	return problems
}

// loadSupplied reads a private key that a group may read, as etcd's often may.
func (f Files) loadSupplied() (crypto.Signer, error) {
	info, err := os.Stat(f.Key)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets everybody at a private key: chmod o-rwx %s", f.Key, info.Mode().Perm(), f.Key)
	}
	data, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, err
	}
	key, err := signer.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Key, err)
	}
	return key, nil
}

func present(errs ...error) []error {
	var there []error
	for _, err := range errs {
		if err != nil {
			there = append(there, err)
		}
	}
	return there
}
