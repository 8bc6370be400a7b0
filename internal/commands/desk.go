// Package commands is what signerd does for its clients: the handlers of commands.
// It joins the signer, the cluster and the grants of authorized_keys, and holds
// the one table of what a client may learn of an error.
package commands

import (
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// Desk serves every command. It is an sshfront.Gate.
type Desk struct {
	signer   *signer.Signer
	clients  signer.Clients
	cluster  *peers.Cluster
	rotation *rotation.Driver
	trust    []byte // PEM, further CAs to hand out
	keys     atomic.Pointer[authkeys.Keys]
	meter    Meter
	now      func() time.Time
}

// Meter counts commands by what they ask for and their status; reason is in a word
// why a command did not end with 0.
type Meter interface {
	Command(command string, status wire.Status, reason string)
}

// SetMeter lets a Meter count commands from now on; before it nobody does.
func (d *Desk) SetMeter(m Meter) { d.meter = m }

// New makes a Desk that nobody may log in to yet; SetKeys says who may.
func New(s *signer.Signer, clients signer.Clients, cluster *peers.Cluster, trust []*x509.Certificate) *Desk {
	d := &Desk{signer: s, clients: clients, cluster: cluster, rotation: rotation.New(s, cluster, trust), trust: signer.EncodeCertificates(trust), now: time.Now}
	d.keys.Store(&authkeys.Keys{})
	return d
}

// SetKeys replaces the list of keys that may log in, for logins from now on.
func (d *Desk) SetKeys(keys *authkeys.Keys) { d.keys.Store(keys) }

// Rotation gives what drives a rotation of the CA.
func (d *Desk) Rotation() *rotation.Driver { return d.rotation }

// bundle gives the CA certificates to trust, PEM.
func (d *Desk) bundle() []byte {
	return slices.Concat(d.signer.Authority().Bundle(), d.trust)
}
