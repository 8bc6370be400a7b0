package wire

import (
	"fmt"
	"path"
	"strings"
)

// Glob is a pattern over one word of a command, in which * stands for any
// number of characters and nothing else is special. Since a word has neither a
// space nor "=", * crosses neither.
type Glob struct{ text string }

// ParseGlob accepts lower-case letters, digits, hyphens, dots and stars. The
// error wraps ErrName.
func ParseGlob(s string) (Glob, error) {
	if s == "" || !onlyContains(s, alphanumeric+"-.*") {
		return Glob{}, fmt.Errorf("%w: pattern %q has more than lower-case letters, digits, hyphens, dots and *", ErrName, s)
	}
	return Glob{s}, nil
}

// Match says whether the whole word fits.
func (g Glob) Match(word string) bool {
	// Of what path.Match finds special the alphabet leaves only the star, and
	// no word has the slash that a star would stop at.
	ok, err := path.Match(g.text, word)
	return ok && err == nil
}

// Literal says whether the pattern matches itself and nothing else.
func (g Glob) Literal() bool { return !strings.Contains(g.text, "*") }

func (g Glob) String() string { return g.text }
