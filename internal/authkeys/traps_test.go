package authkeys

import (
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Traps that golang.org/x/crypto/ssh v0.58 sets for who checks keys and
// certificates with its defaults. Each catches those, and not this package.
// Where the first half of one fails, the library was mended.

// A certificate without principals passes for everybody. An option that is
// listed as supported is not enforced for that.
func TestTrapCertificates(t *testing.T) {
	ca := newSigner(t)
	for _, trap := range []struct {
		what   string
		change func(*ssh.Certificate)
	}{
		{"", func(*ssh.Certificate) {}}, // the valid neighbour
		{"no principals", func(c *ssh.Certificate) { c.ValidPrincipals = nil }},
		{"a force-command that is none of ours", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{forceCommand: "/bin/sh"} }},
		{"a source-address elsewhere", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{sourceAddress: "192.0.2.1"} }},
		{"a signature with SHA-1", func(*ssh.Certificate) {}},
	} {
		signer := ca
		if trap.what == "a signature with SHA-1" {
			key, err := rsa.GenerateKey(rand.Reader, 3072)
			if err != nil {
				t.Fatal(err)
			}
			big, err := ssh.NewSignerFromKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if signer, err = ssh.NewSignerWithAlgorithms(big.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA}); err != nil {
				t.Fatal(err)
			}
		}
		certificate := &ssh.Certificate{
			Key: newSigner(t).PublicKey(), CertType: ssh.UserCert, KeyId: "node", ValidPrincipals: []string{"kubemaster-01"}, ValidBefore: ssh.CertTimeInfinity,
		}
		trap.change(certificate)
		if err := certificate.SignCert(rand.Reader, signer); err != nil {
			t.Fatal(err)
		}
		checker := ssh.CertChecker{SupportedCriticalOptions: []string{forceCommand, sourceAddress}}
		if err := checker.CheckCert("kubemaster-01", certificate); err != nil {
			t.Errorf("%s: the default refuses it: %v", trap.what, err)
		}
		if _, err := parse(t, "cert-authority "+marshal(signer.PublicKey())).Admit(certificate, source, now); (err == nil) != (trap.what == "") {
			t.Errorf("%q: %v", trap.what, err)
		}
	}
}

// ParseAuthorizedKey passes over a line that it cannot read, and takes options
// as they come.
func TestTrapLines(t *testing.T) {
	good := marshal(newSigner(t).PublicKey())
	parse(t, `from="10.0.0.1",command="get-peers" `+good) // the valid neighbour
	for _, text := range []string{
		`from="10.0.0.1 ` + good + "\n" + good, // the first line's quote is not closed
		"frmo=\"10.0.0.1\" " + good,
		"command=get-peers " + good,
		`"restrict" ` + good,
		`command="get-peers"junk ` + good,
		`from="10.0.0.1",from="10.0.0.2" ` + good,
	} {
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err != nil {
			t.Errorf("%s: the default refuses it: %v", text, err)
		}
		if _, err := Parse("authorized_keys", []byte(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}

// An RSA key of any length logs in.
func TestTrapShortKey(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(rand.Reader, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.PublicKey().Verify([]byte("x"), signature); err != nil {
		t.Errorf("the default refuses it: %v", err)
	}
	if err := CheckKey(signer.PublicKey(), minListedRSABits); err == nil {
		t.Error("accepted")
	}
}
