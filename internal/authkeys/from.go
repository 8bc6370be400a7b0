package authkeys

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// sources is the list of a from option: a source is admitted if an element
// matches it and no negated one does, wherever that stands (ssh_config(5),
// PATTERNS).
type sources struct{ admitted, excluded []sourcePattern }

// sourcePattern is a network, or a glob over the text of an address.
type sourcePattern struct {
	network netip.Prefix
	glob    string
}

func parseSources(value string) (*sources, error) {
	var s sources
	for text := range strings.SplitSeq(value, ",") {
		body, negated := strings.CutPrefix(text, "!")
		parsed, err := parseSource(strings.ToLower(body))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if negated {
			s.excluded = append(s.excluded, parsed)
		} else {
			s.admitted = append(s.admitted, parsed)
		}
	}
	if len(s.admitted) == 0 {
		return nil, errors.New("a list of exclusions alone admits nobody")
	}
	return &s, nil
}

var errHostName = errors.New("is not an address, a network or a pattern over addresses; host names are not looked up")

func parseSource(text string) (sourcePattern, error) {
	if strings.ContainsAny(text, "*?") {
		if strings.Trim(text, "0123456789abcdef:.*?") != "" || text != "*" && !strings.ContainsAny(text, ":.") {
			return sourcePattern{}, errHostName
		}
		return sourcePattern{glob: text}, nil
	}
	if strings.Contains(text, "/") {
		network, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return sourcePattern{}, errors.New("is not a network")
		case network != network.Masked():
			return sourcePattern{}, fmt.Errorf("has bits behind the mask; the network is %s", network.Masked())
		case network.Addr().Is4In6():
			return sourcePattern{}, errors.New("is an IPv4-mapped network; write it as IPv4")
		}
		return sourcePattern{network: network}, nil
	}
	address, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return sourcePattern{}, errHostName
	case address.Is4In6():
		return sourcePattern{}, fmt.Errorf("is an IPv4-mapped address; write %s", address.Unmap())
	case address.Zone() != "":
		return sourcePattern{}, errors.New("has a zone; leave it out")
	}
	return sourcePattern{network: netip.PrefixFrom(address, address.BitLen())}, nil
}

func (s *sources) match(source netip.Addr) bool {
	source = source.Unmap().WithZone("")
	matches := func(p sourcePattern) bool { return p.match(source) }
	return !slices.ContainsFunc(s.excluded, matches) && slices.ContainsFunc(s.admitted, matches)
}

func (p sourcePattern) match(source netip.Addr) bool {
	if p.glob == "" {
		return p.network.Contains(source)
	}
	ok, err := path.Match(p.glob, source.String())
	return ok && err == nil
}
