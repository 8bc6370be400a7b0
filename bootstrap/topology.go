package bootstrap

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/signerd/signerd/internal/wire"
)

// place is one entry of a topology: a member, and where the others dial it.
type place struct {
	name    string
	address wire.Address
	port    string
}

func (p place) String() string {
	return p.name + "=https://" + net.JoinHostPort(p.address.String(), p.port)
}

// parseTopology reads the answer to get-topology: name=https://host:port, and so
// on. It ends up in etcd's environment, so that nothing else is let through.
func parseTopology(answer []byte) ([]place, error) {
	var places []place
	for pair := range strings.SplitSeq(strings.TrimSpace(string(answer)), ",") {
		p, err := parsePlace(pair)
		if err != nil {
			return nil, fmt.Errorf("the signer's topology has %q: %w", pair, err)
		}
		places = append(places, p)
	}
	return places, nil
}

func parsePlace(pair string) (place, error) {
	name, url, ok := strings.Cut(pair, "=https://")
	if !ok {
		return place{}, fmt.Errorf("that is not of the form name=https://host:port")
	}
	if _, err := wire.ParseHostName(name); err != nil { // a member's name; older systems have others
		return place{}, err
	}
	host, port, err := net.SplitHostPort(url)
	if err != nil {
		return place{}, err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return place{}, fmt.Errorf("%q is no port", port)
	}
	address, err := wire.ParseAddress(host)
	return place{name, address, port}, err
}

// initialCluster gives a topology in the form of etcd's --initial-cluster.
func initialCluster(places []place) string {
	texts := make([]string, len(places))
	for i, p := range places {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

// lists says whether a topology has a member of a name.
func lists(places []place, name string) bool {
	return slices.ContainsFunc(places, func(p place) bool { return p.name == name })
}
