package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const minimal = `cluster: prod-a
listen: ":22"
host_key: /etc/signerd/ssh_host_ed25519_key
authorized_keys: authorized_keys
authority: /var/lib/signerd/authority
ledger: /var/lib/signerd/ledger
etcd: [https://10.0.0.11:2379]
`

func TestMinimal(t *testing.T) {
	c, err := Parse("/etc/signerd/signerd.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if c.AuthorizedKeys != "/etc/signerd/authorized_keys" {
		t.Errorf("a relative path became %s", c.AuthorizedKeys)
	}
	if got := fmt.Sprintln(c.Clients, c.SSHProfile, c.Retention, c.Limits.PerNamePerHour); got != "[kubemaster-*] compatible 9600h0m0s 60\n" {
		t.Errorf("the defaults are %s", got)
	}
}

func TestAllKeys(t *testing.T) {
	c, err := Parse("/etc/signerd/signerd.yaml", []byte(minimal+`clients: ["kubemaster-*", "worker-*"]
identity: spiffe://prod.example
trust: [old-ca.crt]
metrics: "[::1]:9289"
ssh_profile: strict
retention: 100d
limits:
  per_name_per_hour: 0
  per_source_per_second: 5
  exempt: [10.0.0.0/8]
  health_checks: ["fd00::/16"]
  login_grace: 5s
  connection_life: 1m
  idle: 10s
  unused: 5s
  exec: 2s
  command: 10s
  linger: 500ms
  connections: 10
  unauthenticated: 9
  per_source: 8
  per_source_unauthenticated: 7
  sessions: 6
  sessions_per_connection: 5
  requests_per_session: 4
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Retention != 100*24*time.Hour || c.Limits.PerNamePerHour != 0 || c.Trust[0] != "/etc/signerd/old-ca.crt" || len(c.Clients) != 2 {
		t.Errorf("%+v", c)
	}
	limits, defaults := reflect.ValueOf(c.Limits.Front), reflect.ValueOf(DefaultLimits().Front)
	for i := range limits.NumField() {
		if reflect.DeepEqual(limits.Field(i).Interface(), defaults.Field(i).Interface()) {
			t.Errorf("%s was not read", limits.Type().Field(i).Name)
		}
	}
}

// Each refusal, by what is put in the place of a line that is fine.
func TestRefused(t *testing.T) {
	for _, test := range []struct{ good, bad, want string }{
		{"cluster: prod-a", "", "cluster:"},
		{"cluster: prod-a", "cluster: Prod", "cluster:"},
		{"cluster: prod-a", "cluster: prod-a\ncluster: prod-b", ":2: mapping key \"cluster\" already defined"},
		{"cluster: prod-a", "cluster: prod-a\nclusters: x", ":2: field clusters not found"},
		{"cluster: prod-a", "cluster: [a]", ":1: cannot construct"},
		{`listen: ":22"`, `listen: "22"`, "listen:"},
		{`listen: ":22"`, "", "listen:"},
		{"host_key: /etc/signerd/ssh_host_ed25519_key", "", "host_key:"},
		{"authorized_keys: authorized_keys", "", "authorized_keys:"},
		{"authority: /var/lib/signerd/authority", "", "authority:"},
		{"ledger: /var/lib/signerd/ledger", "", "ledger:"},
		{"etcd: [https://10.0.0.11:2379]", "", "etcd:"},
		{"etcd: [https://10.0.0.11:2379]", "etcd: [http://10.0.0.11:2379]", "https://host:port"},
		{"etcd: [https://10.0.0.11:2379]", "etcd: [https://10.0.0.11]", "https://host:port"},
		{"etcd: [https://10.0.0.11:2379]", "etcd: [10.0.0.11:2379]", "https://host:port"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nclients: [\"Kube*\"]", "clients:"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\ntrust: [\"\"]", "trust:"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nretention: 400", "retention:"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nretention: 30d", "at least 60d"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {idle: 0s}", "idle must be more than 0"},
		{`listen: ":22"`, `listen: ":ssh"`, "listen:"},
		{`listen: ":22"`, `listen: ":70000"`, "listen:"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nclients: []", "clients: no pattern"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nssh_profile: lax", "ssh_profile:"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {per_name_per_hour: -1}", "per_name_per_hour is negative"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {connections: 0}", "connections must be more than 0"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {command: 6m}", "at most 5m0s"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {exempt: [10.0.0.1/8]}", "the network is 10.0.0.0/8"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {exempt: [10.0.0.1]}", ":7:"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {idel: 1s}", "field idel not found"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\n: x", ":7: there is a colon without a key before it"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\nlimits: {null: x}", ":7: there is a colon without a key before it"},
		{"ledger: /var/lib/signerd/ledger", "ledger: /l\n---\nledger: /m", "single document"},
	} {
		if !strings.Contains(minimal, test.good) {
			t.Fatalf("%q is not in the minimal configuration", test.good)
		}
		_, err := Parse("/etc/signerd/signerd.yaml", []byte(strings.Replace(minimal, test.good, test.bad, 1)))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "/etc/signerd/signerd.yaml") {
			t.Errorf("%q: %v; want %q", test.bad, err, test.want)
		}
	}
	if _, err := Parse("x", nil); err == nil {
		t.Error("an empty file passes")
	}
}

func TestAllProblemsAreListed(t *testing.T) {
	_, err := Parse("x", []byte("cluster: A\n"))
	for _, want := range []string{"cluster:", "listen:", "host_key:", "authorized_keys:", "authority:", "ledger:", "etcd:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s too", err, want)
		}
	}
}
