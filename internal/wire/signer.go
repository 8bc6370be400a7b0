package wire

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// ParseSigner reads the address of a signer: a host name, an IPv4 or an IPv6
// address, the latter with or without brackets, with :port or without, which is
// then 22. It gives host:port.
func ParseSigner(s string) (string, error) {
	host, port := s, "22"
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	} else if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return "", fmt.Errorf("%q has no port number between 1 and 65535 after its colon", s)
	}
	address, err := ParseAddress(host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(address.String(), port), nil
}

var hostKeyForm = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)

// ParseHostKey accepts the fingerprint of a signer's host key as ssh-keygen -l
// prints it.
func ParseHostKey(s string) (string, error) {
	if !hostKeyForm.MatchString(s) {
		return "", fmt.Errorf("%q is not a fingerprint as ssh-keygen -l prints it: SHA256: and 43 characters", s)
	}
	return s, nil
}
