// Package rotation replaces the CA of clusters on real hosts: certificates live for two
// minutes, and the timer of signerd sync runs every few seconds.
package rotation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

func TestMain(m *testing.M) {
	os.Exit(fleet.Main(m, "grpcnotrace crashpoints impatient shortlives"))
}

// world is what all tests share.
type world struct{ *fleet.World }

func cluster(t *testing.T) *world {
	t.Helper()
	w := &world{fleet.Here(t)}
	w.Cluster(t)
	return w
}

// rotate asks for a step until its gate lets it, and gives the answer.
func (w *world) rotate(t *testing.T, step string, atMost time.Duration) string {
	t.Helper()
	began := time.Now()
	var answer string
	fleet.Eventually(t, atMost, "rotate "+step, func() (err error) {
		answer, err = w.SSH(t, "", "rotate", step)
		if err != nil && lab.ExitCode(err) != 75 && lab.ExitCode(err) != 255 {
			t.Fatal(err)
		}
		return err
	})
	t.Logf("rotate %s after %s", step, time.Since(began).Round(time.Second))
	return answer
}

// phase waits until the signer says where the rotation stands.
func (w *world) phase(t *testing.T) string {
	t.Helper()
	var status string
	fleet.Eventually(t, time.Minute, "the signer says where the rotation stands", func() (err error) {
		status, err = w.SSH(t, "", "rotate", "status")
		return err
	})
	line, _, _ := strings.Cut(status, "\n")
	return line[strings.LastIndex(line, " ")+1:]
}

// blocked asks for a step, which must be refused and name somebody.
func (w *world) blocked(t *testing.T, step, names string) {
	t.Helper()
	if answer, err := w.SSH(t, "", "rotate", step); lab.ExitCode(err) != 75 || !strings.Contains(err.Error(), names) {
		t.Errorf("rotate %s: %q, %v; want 75 and %q", step, answer, err, names)
	}
}

// bundle gives the CAs that the signer hands out, the active one first.
func (w *world) bundle(t *testing.T) []*x509.Certificate {
	t.Helper()
	var text string
	// Asked from h2, which counts for no client.
	fleet.Eventually(t, time.Minute, "the signer hands out its CAs", func() (err error) {
		text, err = w.Bed.Exec("h2", "ssh", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=/etc/signerd/known_hosts", "signer@"+w.Bed.Address(11), "get-certificate")
		return err
	})
	cas, err := signer.ParseCertificates([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cas
}

// thief is whoever has copied the key of the CA that signs.
type thief struct {
	ca  *x509.Certificate
	key crypto.Signer
}

func (w *world) steal(t *testing.T) *thief {
	t.Helper()
	key, err := signer.ParsePrivateKey([]byte(w.On(t, "h1", "cat", "/var/lib/signerd/authority/active.key")))
	if err != nil {
		t.Fatal(err)
	}
	return &thief{w.bundle(t)[0], key}
}

// admitted gives the ports of the members that let the thief in, as a member.
func (th *thief) admitted(t *testing.T, w *world) (open []string) {
	t.Helper()
	fleet.Eventually(t, time.Minute, "all ports answer", func() (err error) {
		open, err = th.try(t, w)
		return err
	})
	return open
}

func (th *thief) try(t *testing.T, w *world) (open []string, err error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "root"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{signer.PeerName(fleet.Cluster)}, IPAddresses: []net.IP{net.ParseIP(w.Bed.Address(1))}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, th.ca, key.Public(), th.key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for _, ca := range w.bundle(t) {
		roots.AddCert(ca)
	}
	credentials := peers.Credentials{
		Roots:       func() *x509.CertPool { return roots },
		Certificate: always(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}),
	}
	for _, address := range slices.Concat(w.Ports("2379"), w.Ports("2380")) {
		admitted, err := peers.Admits(t.Context(), address, credentials)
		if err != nil {
			return nil, err
		}
		if admitted {
			open = append(open, address)
		}
	}
	return open, nil
}

// ends gives how often etcd ended on a host since some time.
func (w *world) ends(name string, since time.Time) int {
	return len(w.Said(name, "etcd", since, "Stopping ")) + len(w.Said(name, "etcd", since, "Main process exited"))
}

// restarts gives how often sync restarted etcd on a host since some time.
func (w *world) restarts(name string, since time.Time) int {
	return len(w.Said(name, "signerd-sync", since, "restarting etcd")) + len(w.Said(name, "signerd-sync", since, "starting it again"))
}

// oneRestartEach makes sure that each member was restarted once since some time.
func (w *world) oneRestartEach(t *testing.T, since time.Time) {
	t.Helper()
	for _, name := range fleet.Names {
		if ended, restarted := w.ends(name, since), w.restarts(name, since); ended != 1 || restarted != 1 {
			t.Errorf("etcd on %s ended %d times, %d of them by sync", name, ended, restarted)
		}
	}
}

// release ends the hold of names that are not needed any more.
func (w *world) release(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := w.SSH(t, "", "release", name); err != nil {
			t.Error(fmt.Errorf("release %s: %w", name, err))
		}
	}
}
