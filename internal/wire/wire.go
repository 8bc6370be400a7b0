// Package wire is the contract between signerd and its clients: the commands a
// client may send over SSH, the exit statuses it gets back, and the limits of
// both. The page that promises it to users is signerd-protocol(7),
// doc/signerd-protocol.7.md; a test holds the two together.
package wire

// Limits of a request. They are part of the contract: a client that stays
// inside them is never refused for its size.
const (
	MaxCommand    = 512      // bytes of a command line
	MaxRequest    = 64 << 10 // bytes on stdin
	MaxClientName = 63       // bytes, one DNS label's worth (RFC 1035, 2.3.4)
	MaxMemberName = 32       // bytes; also the limit of a cluster id
)

// User is the only SSH user name that signerd admits.
const User = "signer"

// Answer is what a command that succeeded gives its client.
type Answer struct {
	Output []byte // stdout, the whole of it
	Note   string // one line for stderr, or empty
	Serial string // for the journal: of the certificate in Output, or empty
}
