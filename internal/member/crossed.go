package member

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// crossedPath has, until the machine is restarted, the fingerprints of the CAs in the
// bundle that etcd need not load yet, since what they sign leads to the CA before them
// too. It is for when no signer can be asked.
const crossedPath = "/run/signerd-sync.crossed"

// WriteCrossed keeps the fingerprints of such CAs.
func WriteCrossed(fingerprints []string) error {
	text := ""
	for _, fingerprint := range fingerprints {
		text += fingerprint + "\n"
	}
	if present, err := os.ReadFile(crossedPath); err == nil && string(present) == text || errors.Is(err, fs.ErrNotExist) && text == "" {
		return nil
	}
	return durable.Replace(crossedPath, []byte(text), 0o644)
}

// Stale compares the CAs that are loaded with a bundle: those that etcd should not trust
// any more, and those that it has to and does not yet.
func Stale(s *peers.Served, bundle []*x509.Certificate) (extra, missing []string) {
	extra, _ = s.Difference(bundle)
	_, missing = s.Difference(mustLoad(bundle))
	return extra, missing
}

// mustLoad gives the CAs of a bundle that etcd has to have loaded: all but those that
// were kept, as long as there is one before them.
func mustLoad(cas []*x509.Certificate) []*x509.Certificate {
	text, err := os.ReadFile(crossedPath)
	if err != nil {
		return cas
	}
	crossed := strings.Fields(string(text))
	must := slices.DeleteFunc(slices.Clone(cas), func(c *x509.Certificate) bool { return slices.Contains(crossed, signer.Fingerprint(c)) })
	if len(must) == 0 {
		return cas
	}
	return must
}
