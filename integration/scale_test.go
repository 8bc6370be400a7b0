package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signerd/signerd/signer"
)

// The power comes back, and all nodes ask at the same moment, each from an address of its
// own that the signer has never seen; whoever is turned away asks again some seconds later.
// The figures are doc/scale.md's.
func TestAllAtOnce(t *testing.T) {
	nodes := 200
	if long {
		nodes = 10_000
	}
	l := usualLab(t, "")
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	config, err := l.ClientConfig("operator")
	if err != nil {
		t.Fatal(err)
	}
	// One key asks for all: what differs for a signer is the name, the address and the
	// certificate's key.
	requests := make([]string, nodes)
	for i := range requests {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: numbered(i)}}, key)
		if err != nil {
			t.Fatal(err)
		}
		requests[i] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	}
	v := &victim{Lab: l, address: l.Address(1) + ":2222"}
	began := time.Now()
	took, tries := make([]time.Duration, nodes), make([]int, nodes)
	var group sync.WaitGroup
	for i := range nodes {
		group.Go(func() {
			for took[i] == 0 && time.Since(began) < 10*time.Minute {
				tries[i]++
				if v.certifies(t.Context(), fmt.Sprintf("127.%d.%d.%d", 230+i/60_000, i%60_000/240, 1+i%240), config, numbered(i), requests[i]) == nil {
					took[i] = time.Since(began)
					return
				}
				<-time.After(time.Duration(3000+mathrand.IntN(4000)) * time.Millisecond)
			}
		})
	}
	group.Wait()
	all, most := 0, 0
	for i := range nodes {
		if took[i] == 0 {
			t.Errorf("%s has none after %d tries", numbered(i), tries[i])
		}
		all, most = all+tries[i], max(most, tries[i])
	}
	slices.Sort(took)
	t.Logf("%d nodes: half after %s, 99 %% after %s, all after %s; %.1f connections each, %d at most", nodes, took[nodes/2].Round(time.Second/10),
		took[nodes*99/100].Round(time.Second/10), took[nodes-1].Round(time.Second/10), float64(all)/float64(nodes), most)
}

func numbered(i int) string { return fmt.Sprintf("kubemaster-%06d", i) }

// A signer starts on a day of a ledger in which every node has renewed three times.
func TestLedgerOfMany(t *testing.T) {
	sizes := []int{1000}
	if long {
		sizes = []int{10_000, 100_000}
	}
	for _, nodes := range sizes {
		l := usualLab(t, "")
		ledger, _, err := signer.OpenLedger(l.Path("ledger"), signer.LedgerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		const renewals = 3
		var group sync.WaitGroup
		for worker := range 200 {
			group.Go(func() {
				for n := worker; n < renewals*nodes; n += 200 {
					i := n % nodes
					now := time.Now()
					e := signer.Entry{
						Event: signer.Issued, Time: now.UTC().Round(0), Serial: fmt.Sprintf("%032x", n), Profile: "client", Name: numbered(i), NotAfter: now.Add(24 * time.Hour).UTC(),
						Generation: "00000000", Key: fmt.Sprintf("%064x", i), SSHKey: fmt.Sprintf("SHA256:%043d", i), Source: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
					}
					if err := ledger.Take(t.Context(), e, signer.Ask); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		written := time.Since(began)
		if err := ledger.Close(); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if err := l.StartSigner(); err != nil {
			t.Fatal(err)
		}
		started := time.Since(began)
		v := &victim{Lab: l}
		size, err := l.Run("", "du", "-sm", l.Path("ledger"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d nodes: %s MB a day, written in %s; the signer starts in %s, %s resident", nodes, strings.Fields(size)[0], written.Round(time.Second), started.Round(time.Second/10), v.memory(t))
		l.Close()
	}
}
