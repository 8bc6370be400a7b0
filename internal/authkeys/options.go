package authkeys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/wire"
)

// options are what stands before a key, understood.
type options struct {
	authority       bool      // cert-authority
	principals      []string  // principals=; nil: not given
	from            *sources  // from=; nil: from everywhere
	expires         time.Time // expiry-time=, the earliest; zero: never
	command         string    // command=, canonical
	permit          permit
	touchRequired   bool
	noTouchRequired bool
}

// parseOptions reads the options at the start of a line, up to the first blank
// outside quotes. The grammar is that of OpenSSH's auth-options.c: names in
// any case, values in double quotes, where \" is the only escape.
func parseOptions(text string) (o options, rest string, err error) {
	seen := map[string]bool{}
	for {
		name, value, tail, err := cutOption(text)
		if err != nil {
			return options{}, "", err
		}
		if seen[name] && name != "expiry-time" {
			return options{}, "", fmt.Errorf("option %s is given twice", name)
		}
		seen[name] = true
		if err := o.set(name, value); err != nil {
			return options{}, "", err
		}
		switch {
		case strings.HasPrefix(tail, ","):
			text = tail[1:]
		case strings.HasPrefix(tail, " "), strings.HasPrefix(tail, "\t"):
			return o, strings.TrimLeft(tail, " \t"), nil
		case tail == "":
			return options{}, "", errors.New("there is no key after the options")
		default:
			return options{}, "", fmt.Errorf("option %s is followed by %.20q; options are separated by commas", name, tail)
		}
	}
}

// cutOption splits off one name, or name="value". value is nil for a name
// alone.
func cutOption(text string) (name string, value *string, rest string, err error) {
	end := strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
	if end < 0 {
		end = len(text)
	}
	if end == 0 {
		return "", nil, "", fmt.Errorf("an option is missing at %.20q", text)
	}
	name, rest = strings.ToLower(text[:end]), text[end:]
	if !strings.HasPrefix(rest, "=") {
		return name, nil, rest, nil
	}
	rest, quoted := strings.CutPrefix(rest[1:], `"`)
	if !quoted {
		return "", nil, "", fmt.Errorf(`the value of %s must stand in double quotes: %s="..."`, name, name)
	}
	var unquoted strings.Builder
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '"':
			s := unquoted.String()
			return name, &s, rest[i+1:], nil
		case strings.HasPrefix(rest[i:], `\"`):
			i++
		}
		unquoted.WriteByte(rest[i])
	}
	return "", nil, "", fmt.Errorf("the quote of option %s is not closed", name)
}

// neverGiven are options that ask for more than a signer gives. sshd honours
// them, so that whoever wrote one expects something that will not happen.
var neverGiven = []string{
	"pty", "port-forwarding", "agent-forwarding", "x11-forwarding", "user-rc",
	"permitopen", "permitlisten", "tunnel", "environment",
}

// withheld are options that say what is so anyway.
var withheld = []string{
	"restrict", "no-pty", "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc",
	"touch-required", "no-verify-required",
}

func (o *options) set(name string, value *string) error {
	flag := name == "cert-authority" || name == "no-touch-required" || slices.Contains(withheld, name)
	switch {
	case slices.Contains(neverGiven, name):
		return fmt.Errorf("option %s asks for what signerd never gives; take it out", name)
	case name == "verify-required":
		return errors.New("option verify-required cannot be enforced by signerd; take it out, or use another key")
	case flag && value != nil:
		return fmt.Errorf("option %s takes no value", name)
	case flag:
		o.authority = o.authority || name == "cert-authority"
		o.touchRequired = o.touchRequired || name == "touch-required"
		o.noTouchRequired = o.noTouchRequired || name == "no-touch-required"
		return nil
	}
	read, known := valued[name]
	if !known {
		return fmt.Errorf("option %q is unknown", name)
	}
	if value == nil {
		return fmt.Errorf(`option %s needs a value: %s="..."`, name, name)
	}
	if err := read(o, *value); err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

// valued are the options with a value.
var valued = map[string]func(*options, string) error{
	"command": func(o *options, value string) error {
		command, err := wire.Parse(value)
		o.command = command.String()
		return err
	},
	"expiry-time": func(o *options, value string) error {
		expires, err := parseExpiry(value)
		if err == nil && (o.expires.IsZero() || expires.Before(o.expires)) {
			o.expires = expires
		}
		return err
	},
	"from": func(o *options, value string) (err error) {
		o.from, err = parseSources(value)
		return err
	},
	"permit": func(o *options, value string) (err error) {
		o.permit, err = parsePermit(value)
		return err
	},
	"principals": func(o *options, value string) (err error) {
		o.principals, err = parsePrincipals(value)
		return err
	},
}

// parseExpiry reads YYYYMMDD[HHMM[SS]][Z|UTC], in local time without a suffix
// (sshd(8), expiry-time).
func parseExpiry(value string) (time.Time, error) {
	digits, location := value, time.Local
	for _, suffix := range []string{"Z", "UTC"} {
		if cut, ok := strings.CutSuffix(value, suffix); ok {
			digits, location = cut, time.UTC
		}
	}
	const layout = "20060102150405"
	if n := len(digits); n == 8 || n == 12 || n == 14 {
		if t, err := time.ParseInLocation(layout[:n], digits, location); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z for UTC", value)
}

func parsePrincipals(value string) ([]string, error) {
	var principals []string
	for text := range strings.SplitSeq(value, ",") {
		name, err := wire.ParseClientName(text)
		if err != nil {
			return nil, fmt.Errorf("a principal is the name of a client: %w", err)
		}
		principals = append(principals, name)
	}
	return principals, nil
}

// settle checks the options of a line against each other and fills in what
// follows from them.
func (o *options) settle() error {
	if o.noTouchRequired && o.touchRequired {
		return errors.New("options touch-required and no-touch-required contradict each other")
	}
	if o.principals != nil && !o.authority {
		return errors.New("option principals needs cert-authority")
	}
	switch {
	case o.permit == nil && o.command != "":
		literal, err := parsePermit(permitFor(o.command))
		if err != nil {
			return err
		}
		o.permit = literal
	case o.permit == nil:
		o.permit = mustPermit("get-*")
	case o.command != "" && !o.permit.covers(o.command):
		return errors.New("permit does not let the key have what command forces on it; one of the two goes")
	}
	if o.authority && !o.permit.onlyClients() {
		return errors.New("a certificate's principals are names of clients: give etcd-*, release, remove and rotate to plain keys, on lines of their own")
	}
	return nil
}
