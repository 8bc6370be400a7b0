// Package bootstrap turns a fresh machine into a member of an etcd cluster:
// Init into the first one, with the cluster's CA and its signer, Join into one
// more. Both look at everything first and list every problem at once; then they
// go step by step, each of which may be done twice, and write down each step
// that is done. So whatever ends them, a kill or a power cut, the same command
// again goes on from there; after success nothing is left to run twice.
//
// It does not print, log or exit: an Observer is told what happens.
package bootstrap

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/wire"
)

// The classes of failure that callers tell apart.
var (
	// ErrPreflight is wrapped by the list of what stands in the way; nothing
	// was changed.
	ErrPreflight = errors.New("nothing was changed")
	// ErrDone says that this machine is a member already.
	ErrDone = errors.New("this machine is a member already; nothing was changed")
	// ErrDenied is wrapped when the signer does not let this machine join.
	ErrDenied = errors.New("denied")
	// ErrUsage is wrapped when an option is not what it must be.
	ErrUsage = errors.New("usage")
	// ErrBusy is wrapped when another first-boot runs.
	ErrBusy = errors.New("another first-boot is running; wait for it")
	// ErrUnreachable is wrapped when the signer does not answer.
	ErrUnreachable = sshclient.ErrUnreachable
	// ErrUndone is wrapped when a join failed and was undone as a whole.
	ErrUndone = errors.New("everything was undone")
)

// Where things are. They are the same on every machine, so that a runbook can
// name them.
const (
	configDir      = "/etc/signerd"
	configPath     = configDir + "/signerd.yaml"
	keysPath       = configDir + "/authorized_keys"
	hostKeyPath    = configDir + "/ssh_host_ed25519_key"
	knownHostsPath = configDir + "/known_hosts"
	authorityDir   = "/var/lib/signerd/authority"
	ledgerDir      = "/var/lib/signerd/ledger"

	caKeyLink   = config.PKIDir + "/ca.key"
	environment = "/etc/default/etcd"
	etcdDir     = "/var/lib/etcd"

	lockPath = "/run/signerd-first-boot.lock"

	// StateDir is where the journal and, at the end, the receipt are.
	StateDir = "/var/lib/signerd-first-boot"
)

// own are this member's files.
var own = member.Standard

// plan is what is to become of this machine. It is decided once, before anything
// changes, and then kept in the journal.
type plan struct {
	Command   string         `json:"command"` // init or join
	Cluster   string         `json:"cluster"`
	Name      string         `json:"name"`
	Addresses []wire.Address `json:"addresses"` // the first one is what the others dial
	Bind      []string       `json:"bind"`      // the IP addresses that etcd listens on

	Listen    string `json:"listen,omitempty"`    // init: where the signer listens
	Authorize string `json:"authorize,omitempty"` // init: the keys that may ask it; empty: root's
	CAKey     string `json:"ca_key,omitempty"`    // init: p256 or p384

	BackupRecipients []string `json:"backup_recipients,omitempty"` // init: who can open the backup; none: there is none

	Signer         string   `json:"signer,omitempty"`          // join: host:port
	SignerKey      string   `json:"signer_key,omitempty"`      // join: its host key's fingerprint
	KnownHost      string   `json:"known_host,omitempty"`      // join: the signer's line of known_hosts
	Source         string   `json:"source,omitempty"`          // join: where the requests come from
	Identity       string   `json:"identity,omitempty"`        // join: the private key that asks; empty: root's
	CAFingerprints []string `json:"ca_fingerprints,omitempty"` // join: the CAs that may be handed out
}

// dataDir is where etcd keeps its data. A cluster's id has no dot, so that no
// distribution's directory (default, in Debian) is called so.
func (p *plan) dataDir() string { return filepath.Join(etcdDir, p.Cluster+".etcd") }

// address is what the other members dial.
func (p *plan) address() wire.Address { return p.Addresses[0] }

// clientURL is where clients dial this member.
func (p *plan) clientURL() string { return member.ClientURL(p.address().String()) }

// request is how this member asks for its certificate.
func (p *plan) request() wire.Command {
	return wire.Command{Verb: wire.Member, Name: p.Name, Addresses: p.Addresses}
}

// Summary is what a person needs to know at the end.
type Summary struct {
	Command   string    `json:"command"`
	Cluster   string    `json:"cluster"`
	Name      string    `json:"name"`
	Address   string    `json:"address"`
	Finished  time.Time `json:"finished"`
	CA        []string  `json:"ca"`         // fingerprints
	SignerKey string    `json:"signer_key"` // fingerprint of the signer's host key
	Signer    string    `json:"signer"`     // host:port
	Backup    string    `json:"backup,omitempty"`
}
