package wire

import (
	"fmt"
	"net/netip"
	"strings"
)

// Address is where a member is reached: an IP address or a host name in its
// one canonical spelling. Addresses are comparable.
type Address struct {
	ip   netip.Addr
	host string
}

// ParseAddress reads an IPv4 or IPv6 address or an RFC 1123 host name. It
// refuses zones, IPv4-mapped IPv6 and addresses that name no single host; the
// error wraps ErrName.
func ParseAddress(s string) (Address, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		host, err := ParseHostName(s)
		if err != nil {
			return Address{}, fmt.Errorf("%w: address %q is neither an IP address nor a host name", ErrName, s)
		}
		return Address{host: host}, nil
	}
	switch {
	case ip.Zone() != "":
		return Address{}, fmt.Errorf("%w: address %q has a zone; leave out what follows the %%", ErrName, s)
	case ip.Is4In6():
		return Address{}, fmt.Errorf("%w: write %q as %q", ErrName, s, ip.Unmap())
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Address{}, fmt.Errorf("%w: %q is not the address of one host", ErrName, s)
	}
	return Address{ip: ip}, nil
}

// AddressFrom gives the address of a connection's other end.
func AddressFrom(ip netip.Addr) Address { return Address{ip: ip.Unmap().WithZone("")} }

// IP gives the IP address; it is invalid (netip.Addr.IsValid) for a host name.
func (a Address) IP() netip.Addr { return a.ip }

func (a Address) String() string {
	if a.ip.IsValid() {
		return a.ip.String()
	}
	return a.host
}

// MarshalText and UnmarshalText let an Address stand in JSON.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText accepts exactly what ParseAddress accepts.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// JoinAddresses gives addresses as a command or an option has them, with commas between them.
func JoinAddresses(addresses []Address) string {
	words := make([]string, len(addresses))
	for i, a := range addresses {
		words[i] = a.String()
	}
	return strings.Join(words, ",")
}
