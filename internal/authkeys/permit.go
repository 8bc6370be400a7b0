package authkeys

import (
	"fmt"
	"slices"
	"strings"

	"github.com/signerd/signerd/internal/wire"
)

// permit is the list of patterns of a permit option, over canonical commands.
type permit []pattern

type pattern struct {
	verb    wire.Verb    // Release, Remove, Rotate; Member; empty: a command of one word
	glob    wire.Glob    // over the name, the step or the word
	address wire.Address // Member: the address asked for; zero: the source's own
	from    bool         // Rotate: the step takes a CA from stdin, which * does not cross to
}

func parsePermit(value string) (permit, error) {
	var p permit
	for text := range strings.SplitSeq(value, ",") {
		parsed, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		p = append(p, parsed)
	}
	return p, nil
}

// mustPermit is for patterns written in this package.
func mustPermit(value string) permit {
	p, err := parsePermit(value)
	if err != nil {
		panic(err)
	}
	return p
}

// permitFor gives the patterns that permit one canonical command: for a member
// one for each address, otherwise the command itself.
func permitFor(command string) string {
	name, addresses, member := strings.Cut(command, "=")
	if !member {
		return command
	}
	return name + "=" + strings.ReplaceAll(addresses, ",", ","+name+"=")
}

func parsePattern(text string) (p pattern, err error) {
	word := text
	if verb, argument, two := strings.Cut(text, " "); two {
		p.verb, word = wire.Verb(verb), argument
		if p.verb != wire.Release && p.verb != wire.Remove && p.verb != wire.Rotate {
			return p, fmt.Errorf("pattern %q: only release, remove and rotate have a word after them", text)
		}
		if p.verb == wire.Rotate {
			word, p.from = strings.CutSuffix(argument, wire.FromSuffix)
		}
	} else if strings.HasPrefix(text, wire.MemberPrefix) {
		p.verb = wire.Member
		name, address, bound := strings.Cut(text, "=")
		if word = name; bound {
			if p.address, err = wire.ParseAddress(address); err != nil {
				return p, fmt.Errorf("pattern %q: %w", text, err)
			}
		}
	}
	if p.glob, err = wire.ParseGlob(word); err != nil {
		return p, fmt.Errorf("pattern %q: %w", text, err)
	}
	if !p.canMatch() {
		return p, fmt.Errorf("pattern %q matches no command there is", text)
	}
	return p, nil
}

// canMatch is false for what is surely a slip of the pen.
func (p pattern) canMatch() bool {
	sample := strings.ReplaceAll(p.glob.String(), "*", "0")
	matches := func(word wire.Verb) bool { return p.glob.Match(string(word)) }
	switch {
	case p.verb == wire.Rotate:
		return slices.ContainsFunc(wire.Steps, p.matchesStep)
	case p.verb == wire.Remove || p.verb == wire.Member:
		if !p.glob.Literal() {
			return true
		}
		_, err := wire.ParseMemberName(sample)
		return err == nil
	case p.verb == "" && (slices.ContainsFunc(wire.Questions, matches)):
		return true
	case p.verb == "" && strings.HasPrefix(sample, "get-"):
		return false
	case p.glob.Literal():
		_, err := wire.ParseClientName(sample)
		return err == nil && !wire.IsCommandWord(sample)
	}
	return true
}

// allows says whether any pattern matches the command; of a member's
// addresses each must be matched.
func (p permit) allows(command wire.Command, source wire.Address) bool {
	switch command.Verb {
	case wire.Help:
		return true
	case wire.Member:
		for _, address := range command.Addresses {
			if !p.allowsAddress(command.Name, address, source) {
				return false
			}
		}
		return true
	case wire.Release, wire.Remove:
		return p.match(command.Verb, command.Name)
	case wire.Rotate:
		return slices.ContainsFunc(p, func(q pattern) bool { return q.verb == wire.Rotate && q.matchesStep(command.Step) })
	}
	// A member's name without addresses is a client name by its form: let it
	// pass here, so that the answer says what is missing.
	return p.match("", command.String()) || p.match(wire.Member, command.String())
}

// covers says whether a canonical command may be allowed, from some source.
func (p permit) covers(command string) bool {
	parsed, err := wire.Parse(command)
	if err != nil {
		return false
	}
	if parsed.Verb == wire.Member {
		return p.match(wire.Member, parsed.Name)
	}
	return p.allows(parsed, wire.Address{})
}

// matchesStep says whether a pattern for steps matches one.
func (p pattern) matchesStep(step string) bool {
	word, from := strings.CutSuffix(step, wire.FromSuffix)
	return p.from == from && p.glob.Match(word)
}

func (p permit) match(verb wire.Verb, word string) bool {
	return slices.ContainsFunc(p, func(q pattern) bool { return q.verb == verb && q.glob.Match(word) })
}

func (p permit) allowsAddress(name string, address, source wire.Address) bool {
	return slices.ContainsFunc(p, func(q pattern) bool {
		want := q.address
		if want == (wire.Address{}) {
			want = source
		}
		return q.verb == wire.Member && q.glob.Match(name) && want == address
	})
}

// owns says whether the patterns for names are all that one name, literally.
func (p permit) owns(name string) bool {
	owned := false
	for _, q := range p {
		switch {
		case q.verb == wire.Release || q.verb == wire.Remove || q.verb == wire.Rotate,
			strings.HasPrefix(q.glob.String(), "get-"), q.glob.String() == string(wire.Help):
			continue
		case q.glob.String() != name:
			return false
		}
		owned = true
	}
	return owned
}

func (p permit) onlyClients() bool {
	return !slices.ContainsFunc(p, func(q pattern) bool { return q.verb != "" })
}
