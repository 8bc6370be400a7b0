package bootstrap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/signerd/signerd/internal/wire"
)

// defaultName makes a member's name of the machine's: etcd-HOSTNAME, or the
// HOSTNAME where it begins so.
func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	return wire.MemberPrefix + strings.TrimPrefix(host, wire.MemberPrefix)
}

// wayOut gives the address that the default route leaves by, as the kernel
// chooses it (RFC 5737 gives the destination to nobody); no packet is sent.
func wayOut(ctx context.Context) string { return wayTo(ctx, "192.0.2.1:9", "[2001:db8::1]:9") }

// wayTo gives the address that packets to a destination, host:port, leave by: to the first
// of them that can be reached; empty: none can.
func wayTo(ctx context.Context, destinations ...string) string {
	for _, somewhere := range destinations {
		c, err := (&net.Dialer{}).DialContext(ctx, "udp", somewhere)
		if err != nil {
			continue
		}
		host, _, err := net.SplitHostPort(c.LocalAddr().String())
		if c.Close() == nil && err == nil {
			return host
		}
	}
	return ""
}

// interfaceIPs gives the addresses of this machine.
func interfaceIPs() []netip.Addr {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var ips []netip.Addr
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && !prefix.Addr().IsLinkLocalUnicast() {
			ips = append(ips, prefix.Addr())
		}
	}
	return ips
}

// isLocal says whether this machine has an address: any in 127.0.0.0/8, or one
// on an interface.
func isLocal(ip netip.Addr) bool {
	return ip.Is4() && ip.IsLoopback() || slices.Contains(interfaceIPs(), ip)
}

// localIPs gives those of this machine's IP addresses that an address stands
// for: itself, or what a host name resolves to.
func localIPs(ctx context.Context, a wire.Address) ([]netip.Addr, error) {
	ips := []netip.Addr{a.IP()}
	if !a.IP().IsValid() {
		var err error
		if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", a.String()); err != nil {
			return nil, fmt.Errorf("%s cannot be resolved here: %w", a, err)
		}
	}
	var local []netip.Addr
	for _, ip := range ips {
		// A name that leads to loopback (Debian's 127.0.1.1) leads the others nowhere.
		reachable := a.IP().IsValid() || !ip.IsLoopback()
		if ip = ip.Unmap(); reachable && isLocal(ip) && !slices.Contains(local, ip) {
			local = append(local, ip)
		}
	}
	return local, nil
}
