package authkeys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxLine is the longest line in bytes; OpenSSH's limit too.
const maxLine = 8 << 10

// parseLine reads "[options] type base64 [comment]".
func parseLine(text string) (*line, error) {
	if len(text) > maxLine {
		return nil, fmt.Errorf("the line has %d bytes, more than %d", len(text), maxLine)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return nil, errors.New("the line has a control character")
	}
	var l line
	rest := text
	if word, _ := cutBlank(text); !isKeyType(word) {
		var err error
		if l.options, rest, err = parseOptions(text); err != nil {
			return nil, err
		}
	}
	key, err := parseKey(rest)
	if err != nil {
		return nil, err
	}
	l.key = key
	return &l, l.settle()
}

// parseKey reads "type base64 [comment]". It does not use
// ssh.ParseAuthorizedKey, which passes over what it cannot read.
func parseKey(text string) (ssh.PublicKey, error) {
	kind, rest := cutBlank(text)
	if !isKeyType(kind) {
		return nil, fmt.Errorf("%q is no key type; a line is [options] type base64 [comment], and options have no blanks outside quotes", kind)
	}
	encoded, _ := cutBlank(rest)
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the key is not base64; was the line cut?")
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("the key does not parse: %v", err)
	}
	if key.Type() != kind {
		return nil, fmt.Errorf("the line says %s, the key is %s", kind, key.Type())
	}
	return key, CheckKey(key, minListedRSABits)
}

// cutBlank splits off the first word and the blanks after it.
func cutBlank(text string) (word, rest string) {
	end := strings.IndexAny(text, " \t")
	if end < 0 {
		return text, ""
	}
	return text[:end], strings.TrimLeft(text[end:], " \t")
}
