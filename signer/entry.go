package signer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/wire"
)

// Event is what a ledger line records.
type Event string

// The events that callers may ask about.
const (
	Issued    Event = "issue"   // a certificate is about to be signed
	Voided    Event = "void"    // that certificate never left the signer
	Released  Event = "release" // a name's hold ended
	Rotated   Event = "rotate"  // a step of a rotation is about to be done
	Fetched   Event = "fetch"   // the trust bundle of a rotation was handed out
	committed Event = "commit"  // all lines before this one are on disk
)

// Entry is one line of the ledger, in the order of its members. doc/ledger.5.md
// is the format's page.
type Entry struct {
	Seq        uint64         `json:"seq"`
	Prev       Hash           `json:"prev"`
	Time       time.Time      `json:"time"`
	Event      Event          `json:"event"`
	Serial     string         `json:"serial,omitempty"`
	Profile    string         `json:"profile,omitempty"`
	Name       string         `json:"name,omitempty"`
	Addresses  []wire.Address `json:"addresses,omitempty"`
	NotAfter   time.Time      `json:"not_after,omitzero"`
	Generation string         `json:"generation,omitempty"`
	Step       Step           `json:"step,omitempty"`
	Key        string         `json:"key,omitempty"`
	SSHKey     string         `json:"ssh_key,omitempty"`
	Source     string         `json:"source,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	First      uint64         `json:"first,omitempty"` // of a commit: the number of its batch's first line
}

// void says that the certificate of an issue line never left the signer.
func (e Entry) void(now time.Time, reason error) Entry {
	return Entry{Event: Voided, Time: now.UTC().Round(0), Serial: e.Serial, Profile: e.Profile, Name: e.Name, Reason: reason.Error()}
}

// Hash is the SHA-256 of a ledger line without its newline.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText and UnmarshalText write a Hash as lower-case hex.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText accepts exactly what MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) || !bytes.Equal(bytes.ToLower(text), text) {
		return fmt.Errorf("%q is no SHA-256 in lower-case hex", text)
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Head is where a ledger ends: the number of its last line and that line's
// hash. Two ledgers with the same head have the same lines.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash Hash   `json:"hash"`
}

// append adds the line of e, as the next one after h, to lines.
func (h *Head) append(lines []byte, e Entry) ([]byte, error) {
	e.Seq, e.Prev = h.Seq+1, h.Hash
	line, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding a ledger line: %w", err)
	}
	*h = Head{e.Seq, sha256.Sum256(line)}
	return append(append(lines, line...), '\n'), nil
}

// follow reads a line as the next one after h.
func (h *Head) follow(line []byte) (Entry, error) {
	var e Entry
	if err := durable.DecodeStrict(line, &e); err != nil {
		return Entry{}, fmt.Errorf("the line is not a ledger line: %v", err)
	}
	if e.Seq != h.Seq+1 {
		return Entry{}, fmt.Errorf("the line has the number %d after %d", e.Seq, h.Seq)
	}
	if e.Prev != h.Hash {
		return Entry{}, errBrokenChain
	}
	*h = Head{e.Seq, sha256.Sum256(line)}
	return e, nil
}
