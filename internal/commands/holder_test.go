package commands

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// The key of a live certificate renews its own name, may ask get-*, and nothing
// else; it stops at expiry and at release.
func TestLiveKey(t *testing.T) {
	operator := newKey(t)
	b := newBench(t, line(`permit="get-*,kubemaster-*,release *"`, operator))
	for name, key := range map[string]crypto.Signer{"P-256": newCertKey(), "RSA-2048": must(rsa.GenerateKey(rand.Reader, 2048))} {
		live := must(ssh.NewSignerFromKey(key))
		if _, err := b.dial("signer", live); err == nil {
			t.Fatalf("%s: a key without a certificate is let in", name)
		}
		csr := request(key)
		if a := b.ask(operator, "kubemaster-07", csr); a.status != 0 {
			t.Fatalf("%s: %+v", name, a)
		}
		for _, test := range []struct {
			command, stdin string
			status         int
		}{
			{"get-certificate", "", 0},
			{"help", "", 0},
			{"kubemaster-07", csr, 0},
			{"kubemaster-07", request(newCertKey()), 77}, // with that key only
			{"kubemaster-08", csr, 77},
			{"release kubemaster-07", "", 77},
			{"etcd-1=127.0.0.1", csr, 77},
			{"remove etcd-1", "", 77},
		} {
			if a := b.ask(live, test.command, test.stdin); a.status != test.status {
				t.Errorf("%s: %s: %+v; want %d", name, test.command, a, test.status)
			}
		}
		b.ahead.Store(int64(25 * time.Hour))
		if _, err := b.dial("signer", live); err == nil {
			t.Errorf("%s: the key of an expired certificate is let in", name)
		}
		b.ahead.Store(0)
		// On a connection that is open already the hold counts, not the login.
		client := must(b.dial("signer", live))
		if a := b.ask(operator, "release kubemaster-07", ""); a.status != 0 {
			t.Fatalf("%+v", a)
		}
		if a := askOn(t, client, "kubemaster-07", csr); a.status != 77 {
			t.Errorf("%s: after the release, on a connection from before: %+v", name, a)
		}
		_ = client.Close()
		if _, err := b.dial("signer", live); err == nil {
			t.Errorf("%s: the key of a released name is let in", name)
		}
	}
}

// A key that authorized_keys lists is bound by it, live certificate or not.
func TestListedKeyIsBoundByItsLine(t *testing.T) {
	operator, key := newKey(t), newCertKey()
	live := must(ssh.NewSignerFromKey(key))
	b := newBench(t, line(`permit="kubemaster-*"`, operator), line(`permit="get-peers"`, live))
	if a := b.ask(operator, "kubemaster-07", request(key)); a.status != 0 {
		t.Fatalf("%+v", a)
	}
	if a := b.ask(live, "kubemaster-07", request(key)); a.status != 77 {
		t.Errorf("%+v; want 77", a)
	}
	b.authorize(line(`permit="kubemaster-*"`, operator), line(`expiry-time="20200101Z"`, live))
	if _, err := b.dial("signer", live); err == nil {
		t.Error("a key whose line has expired is let in by its certificate")
	}
}

// A member that is known by its last ledger line renews without etcd, even when
// its certificate has expired.
func TestMemberRenewsWithoutEtcd(t *testing.T) {
	operator, key := newKey(t), newCertKey()
	b := newBench(t, line(`permit="etcd-*,remove *,release *"`, operator))
	address := must(wire.ParseAddress("127.0.0.1"))
	order := signer.Order{
		Subject: must(signer.MemberSubject("etcd-1", []wire.Address{address})),
		Key:     must(signer.PublicKeyOf(key.Public())),
	}
	if _, err := b.desk.signer.Issue(t.Context(), time.Now(), order); err != nil {
		t.Fatal(err)
	}
	live := must(ssh.NewSignerFromKey(key))
	b.ahead.Store(int64(100 * 24 * time.Hour))
	for _, caller := range []ssh.Signer{operator, live} {
		a := b.ask(caller, "etcd-1=127.0.0.1", request(key))
		if a.status != 0 {
			t.Fatalf("%+v", a)
		}
		block, _ := pem.Decode([]byte(a.stdout))
		if c := must(x509.ParseCertificate(block.Bytes)); c.Subject.CommonName != "etcd-1" || c.VerifyHostname("127.0.0.1") != nil {
			t.Errorf("the certificate is for %s", c.Subject)
		}
	}
	if a := b.ask(live, "etcd-1=127.0.0.1,127.0.0.2", request(key)); a.status != 77 {
		t.Errorf("another address by the key itself: %+v", a)
	}
	if a := b.ask(operator, "release etcd-1", ""); a.status != 0 {
		t.Fatalf("%+v", a)
	}
	if _, err := b.dial("signer", live); err == nil {
		t.Error("the key of a released member is let in")
	}
}
