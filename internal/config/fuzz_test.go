package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzParse: a configuration that is accepted has only absolute paths and what its page
// promises, and a change of listen and etcd changes nothing else.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(minimal + "clients: [\"kubemaster-*\", \"worker-*\"]\nidentity: spiffe://prod.example\ntrust: [old-ca.crt]\nmetrics: \"[::1]:9289\"\nssh_profile: strict\nretention: 100d\n" +
		"limits:\n  per_name_per_hour: 1\n  exempt: [10.0.0.0/8]\n  command: 30s\n"))
	f.Add([]byte(strings.Replace(minimal, "cluster:", "? cluster\n:", 1)))
	f.Add([]byte(minimal + "cluster: again\n"))
	f.Add([]byte("&a [*a]"))
	f.Add([]byte("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"))
	f.Add([]byte("---\n" + minimal + "---\nother: document\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		const path = "/etc/signerd/signerd.yaml"
		c, err := Parse(path, text)
		if err != nil {
			return
		}
		for _, p := range append([]string{c.HostKey, c.AuthorizedKeys, c.Authority, c.Ledger}, c.Trust...) {
			if !filepath.IsAbs(p) {
				t.Fatalf("the path %q", p)
			}
		}
		if c.Cluster == "" || c.Listen == "" || len(c.Etcd) == 0 || len(c.Clients) == 0 || c.Retention < 60*24*3600e9 || c.Limits.Connections <= 0 {
			t.Fatalf("accepted: %+v", c)
		}
		changed, err := Change(text, "127.0.0.1:2299", []string{"https://127.0.0.1:2"})
		if err != nil {
			t.Fatalf("it cannot be changed: %v", err)
		}
		other, err := Parse(path, changed)
		if err != nil {
			t.Fatalf("after a change: %v\n%s", err, changed)
		}
		c.Listen, c.Etcd = "127.0.0.1:2299", []string{"https://127.0.0.1:2"}
		if !reflect.DeepEqual(c, other) {
			t.Fatalf("a change of listen and etcd made\n%+v of\n%+v", other, c)
		}
	})
}

// FuzzParseMember: what is accepted names a cluster, an address, and absolute paths.
func FuzzParseMember(f *testing.F) {
	f.Add([]byte("cluster: prod-a\nname: etcd-2\naddresses: [10.0.0.12]\nsigners: [{address: 10.0.0.11, host_key: \"SHA256:" + strings.Repeat("A", 43) + "\"}]\n"))
	f.Add([]byte("cluster: prod-a\naddresses: [10.0.0.12]\nmanage: false\ncertificate: a.crt\nkey: a.key\ntrust: ca.crt\npeer_certificate: p.crt\npeer_key: p.key\npeer_trust: ca.crt\n"))
	f.Add([]byte("cluster: [prod-a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMember("/etc/signerd/member.yaml", text)
		if err != nil {
			return
		}
		if m.Cluster == "" || len(m.Addresses) == 0 || m.Manage && (m.Name == "" || len(m.Signers) == 0) || !filepath.IsAbs(m.KnownHosts) {
			t.Fatalf("accepted: %+v", m)
		}
		for _, files := range []MemberFiles{m.Client, m.Peer} {
			for _, p := range []string{files.Certificate, files.Key, files.Trust} {
				if !filepath.IsAbs(p) {
					t.Fatalf("the path %q", p)
				}
			}
		}
	})
}
