package config

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

const minimalMember = `cluster: prod-a
name: etcd-2
addresses: [10.0.0.12, etcd-2.example]
signers:
  - {address: 10.0.0.11}
`

func TestMinimalMember(t *testing.T) {
	m, err := ParseMember("/etc/signerd/member.yaml", []byte(minimalMember))
	if err != nil {
		t.Fatal(err)
	}
	const standard = "{/etc/etcd/pki/member.crt /etc/etcd/pki/member.key /etc/etcd/pki/ca.crt}"
	if got := fmt.Sprintln(m.Name, m.Addresses, m.Signers, m.KnownHosts, m.Manage, m.Client, m.Peer); got !=
		"etcd-2 [10.0.0.12 etcd-2.example] [{10.0.0.11:22 }] /etc/signerd/known_hosts true "+standard+" "+standard+"\n" {
		t.Errorf("it became %s", got)
	}
}

// Certificates that an operator supplies may be two, and the member may be called
// anything.
func TestSuppliedMember(t *testing.T) {
	m, err := ParseMember("/etc/signerd/member.yaml", []byte(`cluster: prod-a
name: infra0
addresses: [10.0.0.12]
manage: false
certificate: server.crt
key: server.key
trust: /etc/ssl/etcd-ca.crt
peer_certificate: peer.crt
peer_key: peer.key
peer_trust: peer-ca.crt
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.Client, m.Peer); got != "{/etc/signerd/server.crt /etc/signerd/server.key /etc/ssl/etcd-ca.crt} {/etc/signerd/peer.crt /etc/signerd/peer.key /etc/signerd/peer-ca.crt}" {
		t.Errorf("its files are %s", got)
	}
}

func TestMemberRefuses(t *testing.T) {
	for change, says := range map[string]string{
		"cluster: prod-a\n => cluster: Prod\n":              "cluster: ",
		"name: etcd-2\n => name: infra0\n":                  "name: ",
		"[10.0.0.12, etcd-2.example] => []":                 "the address that the other members dial is missing",
		"10.0.0.12, => 0.0.0.0,":                            "not the address of one host",
		"{address: 10.0.0.11} => {}":                        "signers: ",
		"10.0.0.11} => 10.0.0.11:x}":                        "no port number",
		"10.0.0.11} => 10.0.0.11, host_key: SHA1}":          "not a fingerprint",
		"signers:\n  - {address: 10.0.0.11} => signers: []": "signers: none",
		"name: => nom: x\nname:":                            "nom",
		"cluster: prod-a => cluster: a\ncluster: b":         "cluster",
		"signers: => peer_key: x\nsigners:":                 "manage: false",
	} {
		before, after, _ := strings.Cut(change, " => ")
		text := strings.Replace(minimalMember, before, after, 1)
		if text == minimalMember {
			t.Fatalf("%q changes nothing", change)
		}
		if _, err := ParseMember("member.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", change, err)
		}
	}
	if _, err := ParseMember("member.yaml", []byte(strings.Replace(minimalMember, "signers:", "manage: false\npeer_key: x\nsigners:", 1))); err == nil || !strings.Contains(err.Error(), "peer_certificate: the path is missing") {
		t.Errorf("half a pair: %v", err)
	}
}

// The page has an example that parses, and a row for each key.
func TestMemberPage(t *testing.T) {
	data, err := os.ReadFile("../../doc/member.yaml.5.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	if _, err := ParseMember("/etc/signerd/member.yaml", []byte(example)); err != nil {
		t.Errorf("the example: %v", err)
	}
	for _, section := range []reflect.Type{reflect.TypeFor[memberFile](), reflect.TypeFor[memberSigner]()} {
		for i := range section.NumField() {
			if key := section.Field(i).Tag.Get("yaml"); !strings.Contains(string(data), "\n| `"+key+"` |") {
				t.Errorf("%s has no row", key)
			}
		}
	}
}
