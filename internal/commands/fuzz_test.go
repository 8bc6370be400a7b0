package commands

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/wire"
)

// FuzzCall: whatever is asked, with whatever on stdin, the status is in the
// table, a refusal is one line, and what is answered to a name is a certificate
// for that name.
func FuzzCall(f *testing.F) {
	operator := newKey(f)
	b := newBench(f)
	keys := must(authkeys.Parse("keys", []byte(line(`permit="get-*,*,release *"`, operator))))
	source := netip.MustParseAddr("127.0.0.1")
	grant := must(keys.Admit(operator.PublicKey(), source, b.desk.now()))
	c := &caller{desk: b.desk, source: source, key: "fuzzer", grant: grant}
	csr := request(newCertKey())
	for _, seed := range []string{"help", "get-certificate", "kubemaster-01", "KUBEMASTER-01", "root", "etcd-1=127.0.0.1", "release kubemaster-01", "rotate status", "a b c", "\x00"} {
		f.Add(seed, csr)
		f.Add(seed, "junk")
	}
	table := []wire.Status{wire.OK, wire.BadName, wire.BadRequest, wire.Usage, wire.Retry, wire.Denied}
	f.Fuzz(func(t *testing.T, command, stdin string) {
		parsed, parseErr := wire.Parse(command)
		if parseErr == nil && slices.Contains([]wire.Verb{wire.GetPeers, wire.GetTopology, wire.GetStatus, wire.Remove}, parsed.Verb) {
			return // they wait for an etcd that is not there
		}
		answer, err := c.Call(t.Context(), command, func(context.Context) ([]byte, error) { return []byte(stdin), nil })
		status := wire.StatusOf(err)
		if !slices.Contains(table, status) {
			t.Fatalf("%q: status %d: %v", command, status, err)
		}
		if err != nil {
			if len(answer.Output) > 0 || err.Error() != wire.UsageText && strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q: %q beside the error %q", command, answer.Output, err)
			}
			return
		}
		if parsed.Verb != wire.Client {
			return
		}
		block, _ := pem.Decode(answer.Output)
		certificate := must(x509.ParseCertificate(block.Bytes))
		if certificate.IsCA || certificate.Subject.CommonName != parsed.Name || !strings.HasPrefix(parsed.Name, "kubemaster-") {
			t.Fatalf("%q: a certificate for %s, CA %v", command, certificate.Subject, certificate.IsCA)
		}
	})
}
