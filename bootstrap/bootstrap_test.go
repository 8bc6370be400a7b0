package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

func addresses(t *testing.T, texts ...string) []wire.Address {
	t.Helper()
	var all []wire.Address
	for _, text := range texts {
		a, err := wire.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]release{
		"etcd Version: 3.7.3\nGit SHA: Not provided\n":                      {3, 7, 3},
		"[WARNING] Deprecated '--logger=capnslog'\netcd Version: 3.4.23\n":  {3, 4, 23},
		"etcd Version: 3.8.0-alpha.0\nGit SHA: 0000000\nGo Version: go1.26": {3, 8, 0},
	} {
		if got, err := parseVersion([]byte(text)); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "etcdctl version: 3.7.3", "etcd Version: 3.7"} {
		if got, err := parseVersion([]byte(text)); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	if !(release{3, 4, 23}).before(oldest) || (release{3, 5, 0}).before(oldest) || (release{4, 0, 0}).before(oldest) {
		t.Error("the oldest release is not 3.5.0")
	}
}

// etcd asks everybody for a certificate, and on the peer port for a member's.
func TestSettings(t *testing.T) {
	for _, test := range []struct {
		plan plan
		want []string
	}{
		{
			plan{Command: "init", Cluster: "prod-a", Name: "etcd-1", Addresses: addresses(t, "10.0.0.11", "192.168.7.11"), Bind: []string{"10.0.0.11", "192.168.7.11"}},
			[]string{
				"ETCD_NAME=etcd-1", "ETCD_DATA_DIR=/var/lib/etcd/prod-a.etcd", "ETCD_INITIAL_CLUSTER_TOKEN=prod-a",
				"ETCD_LISTEN_CLIENT_URLS=https://10.0.0.11:2379,https://192.168.7.11:2379,https://127.0.0.1:2379",
				"ETCD_LISTEN_PEER_URLS=https://10.0.0.11:2380,https://192.168.7.11:2380", "ETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.11:2379",
			},
		},
		{
			plan{Command: "init", Cluster: "six", Name: "etcd-6", Addresses: addresses(t, "fd00::6"), Bind: []string{"fd00::6"}},
			[]string{"ETCD_LISTEN_CLIENT_URLS=https://[fd00::6]:2379,https://127.0.0.1:2379", "ETCD_INITIAL_ADVERTISE_PEER_URLS=https://[fd00::6]:2380"},
		},
		{
			plan{Command: "join", Cluster: "named", Name: "etcd-db", Addresses: addresses(t, "db.test"), Bind: []string{"127.0.0.1"}},
			[]string{"ETCD_LISTEN_CLIENT_URLS=https://127.0.0.1:2379", "ETCD_ADVERTISE_CLIENT_URLS=https://db.test:2379"},
		},
	} {
		lines := strings.Split(strings.TrimSpace(string(test.plan.settings("topology", "new"))), "\n")
		for _, want := range append(test.want, "ETCD_CLIENT_CERT_AUTH=true", "ETCD_PEER_CLIENT_CERT_AUTH=true", "ETCD_INITIAL_CLUSTER=topology",
			"ETCD_PEER_CERT_ALLOWED_HOSTNAME="+signer.PeerName(test.plan.Cluster), "ETCD_LISTEN_METRICS_URLS=http://127.0.0.1:2381") {
			if !slices.Contains(lines, want) {
				t.Errorf("%s is missing in\n%s", want, strings.Join(lines, "\n"))
			}
		}
		if !strings.HasPrefix(lines[0], ours) {
			t.Errorf("the first line is %q", lines[0])
		}
	}
}

const someKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIcWw9bflfRpuuiWVBpF25Q9BeJHDpJl5pm/7x1WYfq4"

// Who may log in as root may ask everything; what a line takes away stays away.
func TestGrantEverything(t *testing.T) {
	for line, want := range map[string]string{
		someKey + " admin@example": everything + " " + someKey + " admin@example",
		someKey:                    everything + " " + someKey,
		`from="10.0.0.0/24",no-pty ` + someKey + " far": everything + `,from="10.0.0.0/24",no-pty ` + someKey + " far",
		`permit="get-*" ` + someKey:                     `permit="get-*" ` + someKey,
		`command="get-peers" ` + someKey:                `command="get-peers" ` + someKey,
		`Command="get-peers" ` + someKey:                `Command="get-peers" ` + someKey,
		`cert-authority,permit="get-*" ` + someKey:      `cert-authority,permit="get-*" ` + someKey,
		"# a comment": "# a comment",
		`environment="A=b" ` + someKey + " asks too much": everything + `,environment="A=b" ` + someKey + " asks too much",
	} {
		got := strings.Split(strings.TrimSpace(string(grantEverything([]byte(line+"\n")))), "\n")
		if last := strings.TrimSpace(got[len(got)-1]); last != want {
			t.Errorf("%s becomes\n%s, want\n%s", line, last, want)
		}
		_, err := authkeys.Parse("root", []byte(strings.Join(got, "\n")+"\n"))
		if tooMuch := strings.Contains(line, "environment"); (err != nil) != tooMuch {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestParseTopology(t *testing.T) {
	const good = "etcd-1=https://10.0.0.11:2380,etcd-6=https://[fd00::6]:2380,node7=https://db.test:2399"
	places, err := parseTopology([]byte(good + "\n"))
	if err != nil || initialCluster(places) != good || !lists(places, "node7") || lists(places, "etcd-7") {
		t.Fatalf("%v, %v", places, err)
	}
	for _, bad := range []string{
		"", "nonsense", "etcd-1=http://10.0.0.11:2380", "etcd-1=https://10.0.0.11", "etcd-1=https://10.0.0.11:x", "=https://10.0.0.11:2380",
		"etcd-2=https://10.0.0.12:2380,\nETCD_CONFIG_FILE=/tmp/x", "etcd-2=https://10.0.0.12:2380,", "etcd 2=https://10.0.0.12:2380", "etcd-2=https://a\nb:2380",
	} {
		if places, err := parseTopology([]byte(bad)); err == nil {
			t.Errorf("%q is %v", bad, places)
		}
	}
}

// A run goes on where the one before ended, and does no step twice that it had
// written down.
func TestStepsGoOn(t *testing.T) {
	dir := t.TempDir()
	var did []string
	var states []State
	failing := "b"
	steps := func() []step {
		var all []step
		for _, id := range []string{"a", "b", "c"} {
			all = append(all, step{id, "do " + id, func(context.Context) (string, error) {
				did = append(did, id)
				if id == failing {
					return "", errors.New("not today")
				}
				return "", nil
			}})
		}
		return all
	}
	for _, want := range []struct {
		did    string
		states []State
	}{
		{"[a b]", []State{Begun, Done, Begun, Failed}},
		{"[b c]", []State{Before, Begun, Done, Begun, Done}},
		{"[]", []State{Before, Before, Before}},
	} {
		j, err := readJournal(dir)
		if err != nil {
			t.Fatal(err)
		}
		if j == nil {
			j = &journal{Version: journalVersion, Plan: plan{Command: "join", Cluster: "prod-a"}, Begun: time.Now(), dir: dir}
		}
		did, states = nil, nil
		b := &boot{journal: j, now: time.Now, observe: func(e Event) { states = append(states, e.State) }}
		err = b.run(t.Context(), steps())
		if fmt.Sprint(did) != want.did || !slices.Equal(states, want.states) || (err == nil) != (want.did != "[a b]") {
			t.Errorf("it did %v, %v, %v; want %s, %v", did, states, err, want.did, want.states)
		}
		failing = ""
	}
	j, err := readJournal(dir)
	if err != nil || j.Plan.Cluster != "prod-a" || !j.done("c") {
		t.Fatalf("the journal is %+v, %v", j, err)
	}
	if err := j.forget(); err != nil {
		t.Fatal(err)
	}
	if j, err := readJournal(dir); j != nil || err != nil {
		t.Errorf("after it was forgotten the journal is %+v, %v", j, err)
	}
}

func TestJournalOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{`{"version": 2}`: "run the release that wrote it", `{"version`: "journal.json"} {
		if err := os.WriteFile(filepath.Join(dir, "journal.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readJournal(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// What was done is kept for later, and what is no receipt is refused with its place.
func TestReceipt(t *testing.T) {
	dir := t.TempDir()
	if s, err := readReceipt(dir); s != nil || err != nil {
		t.Errorf("none is %+v, %v", s, err)
	}
	wrote := &Summary{Command: "init", Cluster: "prod-a", Name: "etcd-1", CA: []string{"ab"}, Finished: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	if err := writeReceipt(dir, wrote); err != nil {
		t.Fatal(err)
	}
	if s, err := readReceipt(dir); err != nil || !reflect.DeepEqual(s, wrote) {
		t.Errorf("it is %+v, %v", s, err)
	}
	for text, want := range map[string]string{`{"version":2,"done":true}`: "run the release that wrote it", `{}`: "receipt.json is damaged"} {
		if err := os.WriteFile(receiptPath(dir), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readReceipt(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The setup folder goes with what was shipped in it, and stays with anything else.
func TestClean(t *testing.T) {
	for _, test := range []struct {
		files []string
		gone  bool
	}{{setupFiles, true}, {[]string{"first-boot"}, true}, {nil, true}, {append([]string{"notes"}, setupFiles...), false}} {
		dir := filepath.Join(t.TempDir(), "setup")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range test.files {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		gone, err := Clean(dir)
		left, _ := os.ReadDir(dir)
		if err != nil || gone != test.gone || len(left) > 0 == test.gone {
			t.Errorf("of %v is left %v, gone %v, %v", test.files, left, gone, err)
		}
	}
}

func TestCheckPins(t *testing.T) {
	dir := t.TempDir()
	one, err := signer.CreateAuthority(filepath.Join(dir, "one"), "prod-a", "p256", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := signer.CreateAuthority(filepath.Join(dir, "other"), "prod-a", "p256", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bundle := append(signer.EncodeCertificate(one.Certificate.Raw), signer.EncodeCertificate(other.Certificate.Raw)...)
	for _, test := range []struct {
		pins []string
		good bool
	}{
		{nil, true},
		{[]string{one.Fingerprint(), other.Fingerprint()}, true},
		{[]string{one.Fingerprint()}, false}, // every CA must be pinned, not one of them
		{[]string{strings.Repeat("0", 64)}, false},
	} {
		if err := checkPins(bundle, test.pins); (err == nil) != test.good {
			t.Errorf("%v: %v", test.pins, err)
		}
	}
	if err := checkPins([]byte("no PEM"), nil); err == nil {
		t.Error("no certificate is no error")
	}
}

// Nobody's name and nobody's address is taken.
func TestPlace(t *testing.T) {
	topology, err := parseTopology([]byte("etcd-1=https://10.0.0.11:2380,etcd-2=https://10.0.0.12:2399"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, address, says string
	}{
		{"etcd-3", "10.0.0.13", ""},
		{"etcd-1", "10.0.0.13", "the name etcd-1 belongs to a member at 10.0.0.11: give --name"},
		{"etcd-3", "10.0.0.11", "the address 10.0.0.11 belongs to the member etcd-1: give --address"},
		{"etcd-3", "10.0.0.12", "the address 10.0.0.12 belongs to the member etcd-2"}, // at whatever port
		{"etcd-1", "10.0.0.11", "etcd-1 at 10.0.0.11 is in the cluster already"},
	} {
		p := &preflight{}
		p.place(plan{Name: test.name, Addresses: addresses(t, test.address)}, topology)
		err := p.verdict()
		if test.says == "" && err != nil || test.says != "" && (!errors.Is(err, ErrPreflight) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s at %s: %v, want %q", test.name, test.address, err, test.says)
		}
	}
}

// The same command again is the same in whatever spelling, and another is not.
func TestSame(t *testing.T) {
	begun := wire.JoinAddresses(addresses(t, "fd00::12", "db2.example"))
	for said, same := range map[string]bool{"": true, "FD00:0::12,DB2.Example": true, "fd00::12": false, "fd00::12,a b": false} {
		p := &preflight{}
		var texts []string
		if said != "" {
			texts = strings.Split(said, ",")
		}
		p.same(time.Now(), [][3]string{{"--address", canonical(texts), begun}})
		if err := p.verdict(); (err == nil) != same {
			t.Errorf("%q: %v", said, err)
		}
	}
}

// Who goes away when asked has begun nothing; and what does not matter of a recipient is
// not another one.
func TestPlanBackup(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFkRV0Z5GbIWBlnCLBg1CCgZC2XIDQyY2QKt3gIAlBgd"
	answers := func(answer string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return answer, err }
	}
	for what, test := range map[string]struct {
		options InitOptions
		want    []string
		says    string // none: it is planned
	}{
		"nobody there":      {InitOptions{}, nil, ""},
		"Enter":             {InitOptions{Ask: answers("", nil)}, nil, ""},
		"an answer":         {InitOptions{Ask: answers(key+" operator", nil)}, []string{key}, ""},
		"none, typed":       {InitOptions{Ask: answers("none", nil)}, nil, ""},
		"gone":              {InitOptions{Ask: answers("", context.Canceled)}, nil, "nothing was changed"},
		"an option":         {InitOptions{BackupRecipients: []string{key + " a b\n"}, Ask: answers("", errors.New("asked"))}, []string{key}, ""},
		"none":              {InitOptions{BackupRecipients: []string{"none"}, Ask: answers("", errors.New("asked"))}, nil, ""},
		"a dry run":         {InitOptions{DryRun: true, Ask: answers("", errors.New("asked"))}, nil, ""},
		"no recipient":      {InitOptions{BackupRecipients: []string{"me"}}, []string{"me"}, "--backup-recipient: "},
		"none among others": {InitOptions{BackupRecipients: []string{key, "none"}}, []string{key, "none"}, "--backup-recipient: "},
	} {
		b, p := &boot{plan: plan{Cluster: "prod-a"}}, &preflight{}
		err := errors.Join(b.planBackup(t.Context(), p, test.options), p.verdict())
		if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) || !slices.Equal(b.plan.BackupRecipients, test.want) {
			t.Errorf("%s: %q, %v", what, b.plan.BackupRecipients, err)
		}
	}
}

// The same recipients again are the same in whatever spelling; none is not somebody.
func TestSameRecipients(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFkRV0Z5GbIWBlnCLBg1CCgZC2XIDQyY2QKt3gIAlBgd"
	for _, test := range []struct {
		said, begun []string
		same        bool
	}{
		{nil, nil, true},
		{nil, []string{key}, true},
		{[]string{key + " a comment\n"}, []string{key}, true},
		{[]string{"none"}, nil, true},
		{[]string{"none"}, []string{key}, false},
		{[]string{key}, nil, false},
		{[]string{key, "age1x"}, []string{key}, false},
	} {
		p := &preflight{}
		b := &boot{plan: plan{BackupRecipients: test.begun}}
		p.same(time.Now(), [][3]string{b.sameRecipients(p, test.said)})
		if err := p.verdict(); (err == nil) != test.same {
			t.Errorf("%q, and begun %q: %v", test.said, test.begun, err)
		}
	}
}

func TestParsePins(t *testing.T) {
	one, other := strings.Repeat("ab", 32), strings.Repeat("01", 32)
	colons := strings.TrimSuffix(strings.Repeat("AB:", 32), ":") // as openssl x509 -fingerprint prints it
	if pins, err := parsePins([]string{colons, other}); err != nil || !slices.Equal(pins, []string{other, one}) {
		t.Errorf("%v, %v", pins, err)
	}
	for _, bad := range []string{"", "SHA256:" + one, one[1:], one + "0", strings.Repeat("xy", 32)} {
		if pins, err := parsePins([]string{bad}); err == nil {
			t.Errorf("%q is %v", bad, pins)
		}
	}
}

// What was said to the run that began counts for the next attempt too: above all
// the pins.
func TestOptionsOfBefore(t *testing.T) {
	before := plan{
		Cluster: "prod-a", Name: "etcd-9", Addresses: addresses(t, "10.0.0.12", "192.168.7.12"), SignerKey: "SHA256:x",
		Identity: "/root/key", CAFingerprints: []string{"aa"},
	}
	o := JoinOptions{Signer: "10.0.0.11"}.or(before)
	if o.SignerFingerprint != "SHA256:x" || !slices.Equal(o.CAFingerprints, []string{"aa"}) || o.Cluster != "prod-a" || o.Name != "etcd-9" ||
		o.Identity != "/root/key" || !slices.Equal(o.Addresses, []string{"10.0.0.12", "192.168.7.12"}) {
		t.Errorf("%+v", o)
	}
	if o := (JoinOptions{Name: "etcd-2", CAFingerprints: []string{"bb"}}).or(before); o.Name != "etcd-2" || !slices.Equal(o.CAFingerprints, []string{"bb"}) {
		t.Errorf("%+v", o)
	}
}
