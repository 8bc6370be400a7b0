package commands

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// caller is one admitted key: by a line of authorized_keys, or because it is
// the key of a live certificate. Of grant and held exactly one is set.
type caller struct {
	desk   *Desk
	source netip.Addr
	key    string // for log and ledger
	grant  *authkeys.Grant
	held   []*signer.Hold
}

// Admit implements sshfront.Gate. On a key that it lists authorized_keys has
// the last word; any other is let in if it holds a name.
func (d *Desk) Admit(login sshfront.Login) (*sshfront.Admission, error) {
	c := &caller{desk: d, source: login.Source}
	grant, err := d.keys.Load().Admit(login.Key, login.Source, d.now())
	switch {
	case err == nil:
		c.grant, c.key = grant, grant.Key
		return &sshfront.Admission{Caller: c, NoTouchRequired: grant.NoTouchRequired}, nil
	case !errors.Is(err, authkeys.ErrUnlisted):
		return nil, err
	}
	if c.held = d.heldBy(login.Key); len(c.held) == 0 {
		return nil, fmt.Errorf("%w: %s", err, ssh.FingerprintSHA256(login.Key))
	}
	c.key = ssh.FingerprintSHA256(login.Key)
	return &sshfront.Admission{Caller: c}, nil
}

// heldBy gives the names that are held by a certificate for an SSH key.
func (d *Desk) heldBy(key ssh.PublicKey) []*signer.Hold {
	// Certificates are issued for smaller RSA keys than may be listed.
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok || authkeys.CheckKey(key, signer.MinRSABits) != nil {
		return nil
	}
	checked, err := signer.PublicKeyOf(public.CryptoPublicKey())
	if err != nil {
		return nil
	}
	return d.signer.Ledger().HeldBy(checked, d.now())
}

// String names the caller for the log.
func (c *caller) String() string {
	if c.grant != nil {
		return fmt.Sprintf("%s (line %d)", c.key, c.grant.Line)
	}
	names := make([]string, len(c.held))
	for i, hold := range c.held {
		names[i] = hold.Name
	}
	return fmt.Sprintf("%s (key of %s)", c.key, strings.Join(names, ", "))
}

// handler serves one verb.
type handler func(context.Context, *caller, wire.Command, sshfront.Stdin) (wire.Answer, error)

// handlers are the commands there are.
var handlers = map[wire.Verb]handler{
	wire.Help:           help,
	wire.GetCertificate: getCertificate,
	wire.GetPeers:       getPeers,
	wire.GetTopology:    getTopology,
	wire.GetStatus:      getStatus,
	wire.Client:         signClient,
	wire.Member:         signMember,
	wire.Release:        release,
	wire.Remove:         remove,
	wire.Rotate:         rotate,
}

var (
	errDenied    = errors.New("denied")
	errNoCommand = errors.New("no command")
)

// Call implements sshfront.Caller.
func (c *caller) Call(ctx context.Context, line string, stdin sshfront.Stdin) (wire.Answer, error) {
	if c.grant != nil && c.grant.Forced != "" {
		line = c.grant.Forced
	}
	command, err := parse(line)
	if err != nil {
		return wire.Answer{}, c.counted("none", err)
	}
	ended := false
	defer func() {
		if !ended { // a panic; whoever recovers it answers with a fault of ours
			c.count(string(command.Verb), wire.Internal, "internal")
		}
	}()
	answer, err := c.call(ctx, command, stdin)
	ended = true
	return answer, c.counted(string(command.Verb), err)
}

// counted counts a command by how it ended, and gives what the client may know.
func (c *caller) counted(verb string, err error) error {
	told := public(err)
	c.count(verb, wire.StatusOf(told), reasonOf(err))
	return told
}

func (c *caller) count(verb string, status wire.Status, reason string) {
	if c.desk.meter != nil {
		c.desk.meter.Command(verb, status, reason)
	}
}

func parse(line string) (wire.Command, error) {
	if strings.Trim(line, " ") == "" {
		return wire.Command{}, errNoCommand
	}
	return wire.Parse(line)
}

func (c *caller) call(ctx context.Context, command wire.Command, stdin sshfront.Stdin) (wire.Answer, error) {
	if command.Verb == wire.Client || command.Verb == wire.Member || command.Step == wire.StepPrepareFrom {
		// What a client pipes in is taken before anything is decided, so that
		// its pipe does not break; what is wrong with it counts only later.
		_, _ = stdin(ctx)
	}
	if err := c.may(command); err != nil {
		return wire.Answer{}, err
	}
	return handlers[command.Verb](ctx, c, command, stdin)
}

// may says why the caller may not send a command.
func (c *caller) may(command wire.Command) error {
	source := wire.AddressFrom(c.source)
	if c.grant == nil {
		if c.repeats(command) {
			return nil
		}
		return fmt.Errorf("%w: a certificate's key may use get-* and renew %s as it is, not ask for %s", errDenied, heldCommands(c.held), command)
	}
	switch {
	case c.grant.Allows(command, source):
		return nil
	case command.Verb == wire.Member:
		return fmt.Errorf("%w: this key may not ask for %s from %s: each address must be the source's, or stand in the key's permit", errDenied, command, source)
	}
	return fmt.Errorf("%w: this key may not ask for %q; its line in authorized_keys says what it may (permit)", errDenied, command)
}

// repeats says whether a command asks for nothing but what the key of a live
// certificate may: questions, the same names and addresses again, and to take
// back a member's join.
func (c *caller) repeats(command wire.Command) bool {
	return slices.Contains(wire.Questions, command.Verb) || slices.ContainsFunc(c.held, func(h *signer.Hold) bool {
		return commandOf(h) == command.String() ||
			command.Verb == wire.Remove && command.Name == h.Name && h.IsMember()
	})
}

// commandOf gives the command that repeats a hold.
func commandOf(h *signer.Hold) string {
	if !h.IsMember() {
		return h.Name
	}
	return wire.Command{Verb: wire.Member, Name: h.Name, Addresses: h.Addresses}.String()
}

func heldCommands(held []*signer.Hold) string {
	commands := make([]string, len(held))
	for i, h := range held {
		commands[i] = commandOf(h)
	}
	return strings.Join(commands, " or ")
}

// asker is the caller as the ledger has it.
func (c *caller) asker() signer.Asker {
	return signer.Asker{SSHKey: c.key, Source: c.source.String()}
}
