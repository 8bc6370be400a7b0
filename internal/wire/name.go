package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrName is wrapped by every error about a name or an address that is not
// well formed.
var ErrName = errors.New("bad name")

// MemberPrefix begins the name of every etcd member, and no client's.
const MemberPrefix = "etcd-"

// ParseHostName gives the lower-case form of a host name: labels of letters,
// digits and inner hyphens, 63 bytes each and 253 in all. The last label is not
// a number, so that no name reads as an IP address (RFC 1123, 2.1; inet_aton(3)
// for what C libraries take for one). The error wraps ErrName.
func ParseHostName(s string) (string, error) {
	name := strings.ToLower(s)
	ok := name != "" && len(name) <= 253
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && onlyContains(label, alphanumeric+"-") &&
			!strings.HasPrefix(label, "-") && !strings.HasSuffix(label, "-")
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	hex, isHex := strings.CutPrefix(last, "0x")
	number := onlyContains(last, digits) || isHex && onlyContains(hex, digits+"abcdef")
	// In lower case some other alphabets' letters are ASCII.
	ascii := strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
	if !ok || number || !ascii {
		return "", fmt.Errorf("%w: %q is not a host name: letters, digits, hyphens and dots only", ErrName, s)
	}
	return name, nil
}

// ParseClientName gives the lower-case form of a client's name, a host name of
// at most MaxClientName bytes. The error wraps ErrName.
func ParseClientName(s string) (string, error) {
	if len(s) > MaxClientName {
		return "", fmt.Errorf("%w: %q has %d bytes; a client name has at most %d", ErrName, s, len(s), MaxClientName)
	}
	return ParseHostName(s)
}

// ParseMemberName accepts the name of an etcd member: "etcd-" and an id of
// lower-case letters, digits and single hyphens. The error wraps ErrName.
func ParseMemberName(s string) (string, error) {
	id, ok := strings.CutPrefix(s, MemberPrefix)
	if !ok || !isIdentifier(id) || len(s) > MaxMemberName {
		return "", fmt.Errorf("%w: %q is not a member name: %q and lower-case letters, digits and single hyphens, at most %d bytes in all",
			ErrName, s, MemberPrefix, MaxMemberName)
	}
	return s, nil
}

// ParseClusterID accepts the name of a cluster: lower-case letters, digits and
// single hyphens, at most MaxMemberName bytes. The error wraps ErrName.
func ParseClusterID(s string) (string, error) {
	if !isIdentifier(s) || len(s) > MaxMemberName {
		return "", fmt.Errorf("%w: %q is not a cluster id: lower-case letters, digits and single hyphens, at most %d bytes", ErrName, s, MaxMemberName)
	}
	return s, nil
}

const (
	digits       = "0123456789"
	alphanumeric = "abcdefghijklmnopqrstuvwxyz" + digits
)

// isIdentifier holds for the alphabet that member and cluster ids share with
// Netsy's: no hyphen at either end, none doubled.
func isIdentifier(s string) bool {
	return s != "" && onlyContains(s, alphanumeric+"-") &&
		!strings.HasPrefix(s, "-") && !strings.HasSuffix(s, "-") && !strings.Contains(s, "--")
}

func onlyContains(s, alphabet string) bool {
	return strings.TrimLeft(s, alphabet) == ""
}
