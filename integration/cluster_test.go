package integration

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
)

// What is issued opens the doors that it is for, and no other.
func TestDoors(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	newClient(t, l, "kubemaster-01")
	if got := ssh(t, l, "", "get-certificate"); got != read(t, l.Path("ca.crt")) {
		t.Errorf("get-certificate is not the CA: %s", got)
	}
	client, member := l.Path("kubemaster-01"), filepath.Join(l.Members["etcd-1"].Dir, "member")
	api, peer := "https://"+l.Address(11)+":2379", "https://"+l.Address(11)+":2380"
	for _, door := range []struct {
		what, url, certificate string
		open                   bool
	}{
		{"a client on 2379", api + "/health", client, true},
		{"a member on 2379", api + "/health", member, true},
		{"a member on 2380", peer + "/members", member, true},
		{"a client on 2380", peer + "/members", client, false},
		{"nobody on 2379", api + "/health", "", false},
		{"nobody on 2380", peer + "/members", "", false},
		{"plain HTTP on 2379", "http://" + l.Address(11) + ":2379/health", "", false},
	} {
		if status, err := get(t, l, door.url, door.certificate); (err == nil && status == 200) != door.open {
			t.Errorf("%s: %d, %v; want open %v", door.what, status, err, door.open)
		}
	}
	for _, args := range [][]string{{"put", "a", "b"}, {"get", "a"}, {"del", "a"}} {
		if _, err := l.Ctl("kubemaster-01", args...); err != nil {
			t.Error(err)
		}
	}
	if got, want := ssh(t, l, "", "get-peers"), api+"\n"; got != want {
		t.Errorf("get-peers is %q, want %q", got, want)
	}
	if got, want := ssh(t, l, "", "get-topology"), "etcd-1="+peer+"\n"; got != want {
		t.Errorf("get-topology is %q, want %q", got, want)
	}
	var status struct {
		Cluster     string
		Generations []struct{ Role, Fingerprint string }
		Members     []struct {
			Name, ID         string
			Learner, Healthy bool
		}
		Names []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(ssh(t, l, "", "get-status")), &status); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintln(status.Members[0].Name, status.Members[0].Healthy, status.Members[0].Learner, status.Generations[0].Role) != "etcd-1 true false active\n" ||
		len(status.Names) != 2 {
		t.Errorf("get-status is %+v", status)
	}
}

// Keys of every kind that openssl makes get a certificate that etcd takes.
func TestKeys(t *testing.T) {
	t.Parallel()
	l := newCluster(t, "")
	for i, options := range [][]string{
		{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
		{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
		{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"},
		{"-algorithm", "ED25519"},
	} {
		name := fmt.Sprintf("kubemaster-%d", i)
		if _, err := l.Run("", "openssl", append([]string{"genpkey", "-quiet", "-out", name + ".key"}, options...)...); err != nil {
			t.Fatal(err)
		}
		csr, err := l.Run("", "openssl", "req", "-new", "-key", name+".key", "-subj", "/CN=ignored")
		if err != nil {
			t.Fatal(err)
		}
		write(t, l.Path(name+".crt"), ssh(t, l, csr, name))
		if _, err := l.Ctl(name, "put", name, "x"); err != nil {
			t.Errorf("%v: %v", options, err)
		}
	}
}
