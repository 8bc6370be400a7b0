package soak

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// node is a client that renews, now and then with another key, and remembers every
// certificate that it was ever given.
type node struct {
	name   string
	ssh    []string // its command line as far as the command
	steady bool     // its name is never released, nor asked for by somebody else
	lazy   bool     // it renews when it must, and keeps what it has until then

	letGo    atomic.Bool // somebody wants its name to be released, for a certificate that lives too long
	key      *ecdsa.PrivateKey
	mu       sync.Mutex
	leaf     *tls.Certificate // nil: none that counts
	roots    *x509.CertPool
	given    []given
	released []time.Time
	denied   int // with another key, while the name was held
}

// given is a certificate that left the signer.
type given struct {
	serial      string
	key         string
	at          time.Time // when it came
	from, until time.Time // by the signer's clock
}

// backdate is how far certificates of short lives begin before they are made.
const backdate = 10 * time.Second

// newNode makes a node with an SSH key of its own, which is to be let in still.
func newNode(name, address, known, dir string) (*node, error) {
	key := filepath.Join(dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return &node{name: name, key: newKey(), ssh: []string{
		"ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + known,
		"-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=3", "signer@" + address,
	}}, nil
}

// line is its line of authorized_keys. With its literal name alone the key might take the
// name from whoever has it.
func (n *node) line(permit string) (string, error) {
	public, err := os.ReadFile(n.ssh[4] + ".pub")
	return `permit="` + permit + `" ` + string(public), err
}

func (n *node) ask(stdin string, command ...string) (string, error) {
	cmd := exec.Command(n.ssh[0], append(n.ssh[1:len(n.ssh):len(n.ssh)], command...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	return string(out), err
}

// live renews until ctx ends.
func (n *node) live(ctx context.Context, random *mathrand.Rand) {
	for ctx.Err() == nil && n.renewOwn() != nil {
		<-time.After(time.Second)
	}
	for ctx.Err() == nil {
		switch what := random.IntN(8); {
		case n.letGo.Swap(false):
			n.startOver()
		case what == 0 && !n.steady:
			n.release()
		case what == 1 && !n.steady && n.leaf != nil: // somebody else by this name
			if _, err := n.renew(newKey()); lab.ExitCode(err) == 77 {
				n.denied++
			}
		default:
			_ = n.renewOwn() // the signer may be off
		}
		pause := time.Duration(2000+random.IntN(4000)) * time.Millisecond
		if n.lazy && n.leaf != nil {
			pause = time.Duration(50+random.IntN(40)) * time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// release ends the hold of the name, and the node is a machine made anew.
func (n *node) release() {
	_, err := n.ask("", "release", n.name)
	if err == nil {
		n.key = newKey()
	}
	if err != nil && lab.ExitCode(err) != 255 { // then it may have been done
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.released, n.leaf = append(n.released, time.Now()), nil
}

// startOver ends the hold of the name without another key: what the node has is new, and
// what it had before nobody needs.
func (n *node) startOver() {
	if err := n.renewOwn(); lab.ExitCode(err) == 77 { // another key has the name by now
		n.release()
		return
	} else if err != nil {
		return
	}
	if _, err := n.ask("", "release", n.name); err == nil {
		n.mu.Lock()
		n.released = append(n.released, time.Now())
		n.mu.Unlock()
		_ = n.renewOwn() // and again, in its turn
	}
}

// renewOwn gets the node a new certificate.
func (n *node) renewOwn() error {
	leaf, err := n.renew(n.key)
	if err == nil && leaf == nil {
		err = errors.New("it is not valid now")
	}
	if err == nil {
		n.mu.Lock()
		n.leaf = leaf
		n.mu.Unlock()
	}
	return err
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// renew fetches the CAs, as signer-renew does, and a certificate for a key. One that is not
// valid by this machine's clock is remembered, and not used: the leaf is nil then.
func (n *node) renew(key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	bundle, err := n.ask("", "get-certificate")
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: n.name}}, key)
	if err != nil {
		return nil, err
	}
	answer, err := n.ask(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), n.name)
	if err != nil {
		return nil, err
	}
	chain, err := signer.ParseCertificates([]byte(answer))
	if err != nil {
		return nil, err
	}
	leaf := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		leaf.Certificate = append(leaf.Certificate, c.Raw)
	}
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.given = append(n.given, given{
		serial: chain[0].SerialNumber.Text(16), key: string(chain[0].RawSubjectPublicKeyInfo),
		at: now, from: chain[0].NotBefore.Add(backdate), until: chain[0].NotAfter,
	})
	if now.Before(chain[0].NotBefore) || now.After(chain[0].NotAfter) {
		return nil, nil
	}
	n.roots = x509.NewCertPool()
	n.roots.AppendCertsFromPEM([]byte(bundle))
	return leaf, nil
}

// config reads what the node has for each handshake.
func (n *node) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it, by the CAs that the node has by then
		VerifyConnection: func(state tls.ConnectionState) error {
			n.mu.Lock()
			options := x509.VerifyOptions{Roots: n.roots, Intermediates: x509.NewCertPool()}
			n.mu.Unlock()
			for _, c := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.leaf == nil {
				return nil, errors.New("no certificate at the moment")
			}
			return n.leaf, nil
		},
	}
}

// admitted says whether a member's port takes what the node has, and the node what the
// member shows. Neither is so, and no error, if there is nothing to show, or, while faults
// happen, the member cannot be reached or has another clock.
func (n *node) admitted(ctx context.Context, port string, faults bool) (bool, error) {
	n.mu.Lock()
	leaf, roots := n.leaf, n.roots
	n.mu.Unlock()
	if leaf == nil || time.Until(leaf.Leaf.NotAfter) < 5*time.Second {
		return false, nil
	}
	admitted, err := peers.Admits(ctx, port, peers.Credentials{
		Roots: func() *x509.CertPool { return roots }, Certificate: func(context.Context) (*tls.Certificate, error) { return leaf, nil },
	})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return false, fmt.Errorf("%s does not accept what %s shows: %w", n.name, port, err)
	case err != nil && !faults:
		return false, fmt.Errorf("%s of %s at rest: %w", port, n.name, err)
	case err != nil || admitted:
		return admitted, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leaf != leaf && n.leaf == nil {
		return false, nil // its name was released meanwhile
	}
	return false, fmt.Errorf("%s refuses the certificate %s of %s by %s, which is valid until %s", port, leaf.Leaf.SerialNumber.Text(16), n.name,
		leaf.Leaf.Issuer.CommonName, leaf.Leaf.NotAfter.Format(time.TimeOnly))
}
