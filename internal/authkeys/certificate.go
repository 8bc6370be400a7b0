package authkeys

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// The critical options of an OpenSSH certificate that are enforced here
// (PROTOCOL.certkeys, "Critical options"); any other refuses the certificate.
const (
	forceCommand  = "force-command"
	sourceAddress = "source-address"
)

// admitCertificate admits an OpenSSH user certificate by the first
// cert-authority line that does.
func (k *Keys) admitCertificate(certificate *ssh.Certificate, source netip.Addr, now time.Time) (*Grant, error) {
	denial := fmt.Errorf("%w: no cert-authority line names the certificate's CA", ErrDenied)
	for _, l := range k.lines {
		if !l.authority || !sameKey(l.key, certificate.SignatureKey) {
			continue
		}
		grant, err := l.certified(certificate, source, now)
		if err == nil {
			return grant, nil
		}
		denial = fmt.Errorf("line %d: certificate %q: %w", l.number, certificate.KeyId, err)
	}
	return nil, denial
}

func (l *line) certified(certificate *ssh.Certificate, source netip.Addr, now time.Time) (*Grant, error) {
	if err := l.admits(source, now); err != nil {
		return nil, err
	}
	names := l.namesIn(certificate)
	if err := checkCertificate(certificate, names, now); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDenied, err)
	}
	if list, ok := certificate.CriticalOptions[sourceAddress]; ok {
		if !listsNetwork(list, source) {
			return nil, fmt.Errorf("%w: its source-address does not list %s", ErrDenied, source)
		}
	}
	forced, err := l.forcedBy(certificate)
	if err != nil {
		return nil, err
	}
	_, noTouch := certificate.Extensions["no-touch-required"]
	return &Grant{
		Key:             fmt.Sprintf("certificate %q serial %d of %s", certificate.KeyId, certificate.Serial, ssh.FingerprintSHA256(l.key)),
		Line:            l.number,
		Forced:          forced,
		NoTouchRequired: l.noTouchRequired && noTouch,
		permit:          l.permit,
		principals:      names,
	}, nil
}

// listsNetwork says whether a source-address option lists a source: addresses
// and networks only, all of them well formed (PROTOCOL.certkeys).
func listsNetwork(list string, source netip.Addr) bool {
	sources, err := parseSources(list)
	return err == nil && !strings.ContainsAny(list, "!*?") && sources.match(source)
}

// namesIn gives the client names among the certificate's principals that the
// line lets through. A certificate without principals names nobody: OpenSSH
// would let it in as anybody.
func (l *line) namesIn(certificate *ssh.Certificate) []string {
	var names []string
	for _, principal := range certificate.ValidPrincipals {
		name, err := wire.ParseClientName(principal)
		if err == nil && name == principal && (l.principals == nil || slices.Contains(l.principals, name)) {
			names = append(names, name)
		}
	}
	return names
}

func checkCertificate(certificate *ssh.Certificate, names []string, now time.Time) error {
	if certificate.CertType != ssh.UserCert {
		return errors.New("it is not a user certificate")
	}
	if len(names) == 0 {
		return errors.New("it has no principal that is the name of a client admitted here")
	}
	if err := CheckKey(certificate.Key, minListedRSABits); err != nil {
		return err
	}
	if certificate.Signature.Format == ssh.KeyAlgoRSA {
		return errors.New("it is signed with SHA-1; use ssh-keygen -t rsa-sha2-512 -s")
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{forceCommand, sourceAddress},
		Clock:                    func() time.Time { return now },
	}
	// One principal only: with several tries the last error would hide the
	// first.
	return checker.CheckCert(names[0], certificate)
}

// forcedBy gives the command forced by the line, the certificate, or both in
// agreement.
func (l *line) forcedBy(certificate *ssh.Certificate) (string, error) {
	text, ok := certificate.CriticalOptions[forceCommand]
	if !ok {
		return l.command, nil
	}
	command, err := wire.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%w: its force-command: %v", ErrDenied, err)
	}
	if forced := command.String(); l.command == "" || l.command == forced {
		return forced, nil
	}
	return "", fmt.Errorf("%w: its force-command is not the line's command", ErrDenied)
}
