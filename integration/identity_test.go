package integration

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/signerd/signerd/integration/lab"
)

// Certificates with the identities of other software are accepted by it, and etcd
// cannot tell the difference: a member votes and a client writes with them.
func TestIdentities(t *testing.T) {
	for identity, accept := range map[string]func(t *testing.T, l *lab.Lab, role, name string){
		"netsy://" + lab.Cluster:             netsyAccepts,
		"spiffe://prod.example":              spiffeAccepts,
		"spiffe://prod.example/etcd/prod-a":  spiffeAccepts,
		"etcd://" + lab.Cluster + ".example": nil,
	} {
		t.Run(identity, func(t *testing.T) {
			l := newCluster(t, "identity: "+identity+"\n")
			newClient(t, l, "kubemaster-07")
			if out, err := l.Ctl("kubemaster-07", "put", "who", identity); err != nil {
				t.Errorf("etcd: %v %s", err, out)
			}
			if _, err := l.JoinMember(12); err != nil {
				t.Errorf("a member joins: %v", err)
			}
			if accept != nil {
				accept(t, l, "client", "kubemaster-07")
				accept(t, l, "peer", "etcd-1")
			}
		})
	}
}

// netsyName is what Netsy lets a peer be called.
var netsyName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// netsyAccepts holds a certificate to Netsy's published rules: of its URIs the
// first with the scheme counts; its host is the cluster, its path /role/name.
func netsyAccepts(t *testing.T, l *lab.Lab, role, name string) {
	t.Helper()
	chain, _ := pair(t, file(l, role, name))
	leaf := chain[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "netsy" || leaf.URIs[0].Host != lab.Cluster || leaf.URIs[0].Path != "/"+role+"/"+name || leaf.URIs[0].RawQuery != "" {
		t.Errorf("%s: Netsy refuses the URIs %v", name, leaf.URIs)
	}
	if role == "peer" && (!netsyName.MatchString(name) || len(name) > 32) {
		t.Errorf("Netsy refuses a peer called %s", name)
	}
	usages := map[string][]x509.ExtKeyUsage{"client": {x509.ExtKeyUsageClientAuth}, "peer": {x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, l.Path("ca.crt"))))
	for _, usage := range usages[role] {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// spiffeAccepts has go-spiffe parse and verify a certificate with its key.
func spiffeAccepts(t *testing.T, l *lab.Lab, role, name string) {
	t.Helper()
	_, text := pair(t, file(l, role, name))
	svid, err := x509svid.Parse([]byte(text), []byte(read(t, file(l, role, name)+".key")))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	domain := spiffeid.RequireTrustDomainFromString("prod.example")
	bundle, err := x509bundle.Parse(domain, []byte(read(t, l.Path("ca.crt"))))
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := x509svid.Verify(svid.Certificates, bundle)
	if err != nil || !strings.HasSuffix(id.String(), fmt.Sprintf("/%s/%s", role, name)) {
		t.Errorf("%s: %s, %v", name, id, err)
	}
	other, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString("other.example"), []byte(read(t, l.Path("ca.crt"))))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, other); err == nil {
		t.Error("another trust domain takes it")
	}
}

// file is where the lab has a certificate and its key, but for the ending.
func file(l *lab.Lab, role, name string) string {
	if role == "peer" {
		return l.Path(name + "/member")
	}
	return l.Path(name)
}

// pair reads a certificate and what is below it.
func pair(t *testing.T, path string) ([]*x509.Certificate, string) {
	t.Helper()
	text := read(t, path+".crt")
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return chain, text
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
}
