package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrCommand is wrapped by every error about a command line that follows no
// form of the grammar.
var ErrCommand = errors.New("unknown command or arguments")

// Verb says what a command asks for.
type Verb string

// The verbs. Client and Member have no word of their own on the wire: there the
// name is the command.
const (
	Help           Verb = "help"
	GetCertificate Verb = "get-certificate"
	GetPeers       Verb = "get-peers"
	GetTopology    Verb = "get-topology"
	GetStatus      Verb = "get-status"
	Client         Verb = "client"
	Member         Verb = "member"
	Release        Verb = "release"
	Remove         Verb = "remove"
	Rotate         Verb = "rotate"
)

// FromSuffix ends the step that takes a CA from stdin.
const FromSuffix = " --from"

// Steps of a rotation that are none of the CA's own.
const (
	StepPrepareFrom = "prepare" + FromSuffix // takes a CA that was made elsewhere from stdin
	StepStatus      = "status"
	StepAuto        = "auto" // whatever comes next and its gate allows
)

// Steps are what may follow "rotate".
var Steps = []string{"prepare", StepPrepareFrom, "activate", "retire", "finish", "rollback", "abort", StepAuto, StepStatus}

// Questions are the commands of one fixed word, which change nothing.
var Questions = []Verb{Help, GetCertificate, GetPeers, GetTopology, GetStatus}

// Command is one well-formed command line. It comes from Parse.
type Command struct {
	Verb      Verb
	Name      string    // Client, Member, Release, Remove: canonical
	Addresses []Address // Member: at least one, no two alike
	Step      string    // Rotate: one of Steps
}

// Parse reads a command line as the client sent it. Words are separated by
// spaces; there is no quoting. The error wraps ErrName if a single word is
// malformed, else ErrCommand.
func Parse(line string) (Command, error) {
	if len(line) > MaxCommand {
		return Command{}, fmt.Errorf("%w: the command has %d bytes, more than %d", ErrCommand, len(line), MaxCommand)
	}
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Command{}, fmt.Errorf("%w: the command %.80q has a control character", ErrCommand, line)
	}
	words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' })
	switch {
	case len(words) == 1:
		return parseWord(words[0])
	case len(words) == 2, len(words) == 3 && words[0] == string(Rotate):
		return parsePair(Verb(words[0]), strings.Join(words[1:], " "))
	}
	return Command{}, fmt.Errorf("%w: %.80q; ask for help", ErrCommand, line)
}

func parseWord(word string) (Command, error) {
	lower := strings.ToLower(word)
	switch {
	case word == "--help":
		return Command{Verb: Help}, nil
	case slices.Contains(Questions, Verb(word)):
		return Command{Verb: Verb(word)}, nil
	case strings.HasPrefix(lower, "get-") || slices.Contains(Questions, Verb(lower)):
		return Command{}, fmt.Errorf("%w: %q; ask for help", ErrCommand, word)
	case takesArgument(Verb(lower)):
		return Command{}, fmt.Errorf("%w: %q needs one word after it, in lower case", ErrCommand, word)
	case strings.Contains(word, "="):
		return parseMember(word)
	}
	name, err := ParseClientName(word)
	if err != nil {
		return Command{}, err
	}
	return Command{Verb: Client, Name: name}, nil
}

func parseMember(word string) (Command, error) {
	left, right, _ := strings.Cut(word, "=")
	name, err := ParseMemberName(left)
	if err != nil {
		return Command{}, err
	}
	var addresses []Address
	for text := range strings.SplitSeq(right, ",") {
		address, err := ParseAddress(text)
		if err != nil {
			return Command{}, err
		}
		if slices.Contains(addresses, address) {
			return Command{}, fmt.Errorf("%w: address %s is given twice", ErrName, address)
		}
		addresses = append(addresses, address)
	}
	return Command{Verb: Member, Name: name, Addresses: addresses}, nil
}

func takesArgument(v Verb) bool { return v == Release || v == Remove || v == Rotate }

func parsePair(verb Verb, argument string) (Command, error) {
	usage := func(err error) (Command, error) {
		return Command{}, fmt.Errorf("%w: %s: %v", ErrCommand, verb, err)
	}
	switch verb {
	case Release:
		name, err := ParseClientName(argument)
		if err != nil {
			return usage(err)
		}
		return Command{Verb: Release, Name: name}, nil
	case Remove:
		name, err := ParseMemberName(argument)
		if err != nil {
			return usage(err)
		}
		return Command{Verb: Remove, Name: name}, nil
	case Rotate:
		if !slices.Contains(Steps, argument) {
			return usage(fmt.Errorf("%q is not one of %s", argument, strings.Join(Steps, ", ")))
		}
		return Command{Verb: Rotate, Step: argument}, nil
	}
	return Command{}, fmt.Errorf("%w: %.80q; a name is one word, other commands are in help", ErrCommand, string(verb)+" "+argument)
}

// String gives the canonical command line: Parse(c.String()) gives c again.
func (c Command) String() string {
	switch c.Verb {
	case Client:
		return c.Name
	case Member:
		return c.Name + "=" + JoinAddresses(c.Addresses)
	case Release, Remove:
		return string(c.Verb) + " " + c.Name
	case Rotate:
		return string(c.Verb) + " " + c.Step
	}
	return string(c.Verb)
}

// IsCommandWord says whether a word is a command's own and so nobody's name.
func IsCommandWord(word string) bool {
	v := Verb(word)
	return slices.Contains(Questions, v) || takesArgument(v) || strings.HasPrefix(word, "get-")
}
