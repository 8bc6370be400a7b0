package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/signer"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const configText = "cluster: prod-a\nlisten: 127.0.0.1:2222\nhost_key: host_key\nauthorized_keys: authorized_keys\n" +
	"authority: authority\nledger: ledger\netcd: [https://127.0.0.1:1]\ntrust: [old.crt]\n"

// made is a signer with a ledger that no chunk of age's (64 KiB) holds, and its backup.
type made struct {
	dir         string
	fingerprint string
	key         *age.X25519Identity
	sealed      []byte
}

func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func makeBackup(t testing.TB) made {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "signerd.yaml")
	active, err := signer.CreateAuthority(filepath.Join(dir, "authority"), "prod-a", "p256", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "ledger"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"signerd.yaml": configText, "host_key": "a host key", "authorized_keys": "who may ask",
		"old.crt":                   string(signer.EncodeCertificate(active.Certificate.Raw)),
		"ledger/2026-11-21.jsonl":   strings.Repeat("a line of yesterday\n", 10_000),
		"ledger/2026-11-22.jsonl":   "a line of today\n",
		"ledger/2026-01-01.jsonl":   "too old to matter\n",
		"ledger/not-the-ledger.txt": "whatever\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := signer.LoadAuthority(c.Authority, now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := ParseRecipients([]string{" " + key.Recipient().String() + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	if err := (Source{path, c, authority}).Write(&sealed, recipients, now); err != nil {
		t.Fatal(err)
	}
	return made{dir, active.Fingerprint(), key, sealed.Bytes()}
}

func (m made) restore(sealed []byte, dir string) (*Restored, error) {
	return Restore(bytes.NewReader(sealed), filepath.Join(dir, "signerd.yaml"), m.fingerprint, []age.Identity{m.key}, Changes{}, now)
}

// What comes back is what was, but for lines of the ledger that cannot matter, and the
// state, which says that it was restored.
func TestRoundTrip(t *testing.T) {
	m, dir := makeBackup(t), t.TempDir()
	restored, err := m.restore(m.sealed, dir)
	if err != nil {
		t.Fatal(err)
	}
	if a := restored.Authority; a.Active().Fingerprint() != m.fingerprint || !a.Restored() || restored.Config.Cluster != "prod-a" {
		t.Errorf("restored: %s, %v, %s", a.Active().Fingerprint(), a.Restored(), restored.Config.Cluster)
	}
	want, got := files(t, m.dir), files(t, dir)
	for _, name := range []string{"ledger/2026-01-01.jsonl", "ledger/not-the-ledger.txt", "authority/backup.json", "authority/state.json"} {
		delete(want, name)
		if name != "authority/state.json" && got[name] != "" {
			t.Errorf("%s came back", name)
		}
	}
	delete(got, "authority/state.json")
	if !maps.Equal(want, got) {
		t.Errorf("there were %q, and came back %q", slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	}
	if _, err := m.restore(m.sealed, dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a signer: %v", err)
	}
}

// A backup goes where nothing is, and the authority knows of it only then.
func TestSave(t *testing.T) {
	m := makeBackup(t)
	if err := os.Remove(filepath.Join(m.dir, "authority/backup.json")); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(filepath.Join(m.dir, "signerd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := signer.LoadAuthority(c.Authority, now)
	if err != nil {
		t.Fatal(err)
	}
	source, path := Source{filepath.Join(m.dir, "signerd.yaml"), c, authority}, filepath.Join(t.TempDir(), "it.age")
	for _, there := range []bool{true, false} {
		if there {
			if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		err := source.Save(path, []age.Recipient{m.key.Recipient()}, now)
		last, lastErr := authority.LastBackup()
		if there != errors.Is(err, fs.ErrExist) || there != (last == nil) || lastErr != nil {
			t.Errorf("something there %v: %v, %v, %v", there, err, last, lastErr)
		}
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.restore(sealed, t.TempDir()); err != nil {
		t.Error(err)
	}
}

// Who can open a backup is one public key a line, of kinds that go together.
func TestRecipients(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	const ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFkRV0Z5GbIWBlnCLBg1CCgZC2XIDQyY2QKt3gIAlBgd operator"
	one, other := key.Recipient().String(), hybrid.Recipient().String()
	for what, test := range map[string]struct {
		texts []string
		says  string // none: it is taken
	}{
		"age's":               {[]string{one}, ""},
		"post-quantum":        {[]string{other}, ""},
		"SSH":                 {[]string{ssh + "\n"}, ""},
		"two kinds":           {[]string{one, ssh}, ""},
		"kinds that part":     {[]string{one, other}, "no backup can be made for these"},
		"nobody":              {nil, "no backup can be made for these"},
		"two in one":          {[]string{ssh + "\n" + ssh}, "one line"},
		"two of age's in one": {[]string{one + "\n" + one}, "one line"},
		"a private key":       {[]string{key.String()}, "that is a private key"},
		"an SSH private key":  {[]string{"-----BEGIN OPENSSH PRIVATE KEY-----\nabc"}, "that is a private key"},
		"a plugin's":          {[]string{"age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"}, "without a plugin"},
		"another curve":       {[]string{"ecdsa-sha2-nistp256 AAAA"}, "neither an age recipient"},
		"a comment":           {[]string{"# nobody"}, "neither an age recipient"},
	} {
		_, err := ParseRecipients(test.texts)
		if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s: %v, want %q", what, err, test.says)
		}
	}
}

// entry is a file of an archive, which may claim another size than it has.
type entry struct {
	name, data string
	size       int64
	kind       byte
}

func (m made) entries(t *testing.T) []entry {
	t.Helper()
	decrypted, err := age.Decrypt(bytes.NewReader(m.sealed), m.key)
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for archive := tar.NewReader(decrypted); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{header.Name, string(data), header.Size, header.Typeflag})
	}
}

func (m made) seal(t *testing.T, entries []entry) []byte {
	t.Helper()
	var sealed bytes.Buffer
	encrypted, err := age.Encrypt(&sealed, m.key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(encrypted)
	for _, e := range entries {
		if err := archive.WriteHeader(&tar.Header{Name: e.name, Size: e.size, Typeflag: e.kind, Mode: 0o4777, Linkname: map[bool]string{true: "/etc/passwd"}[e.kind == tar.TypeSymlink]}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(archive, e.data); err != nil {
			t.Fatal(err)
		}
		if int64(len(e.data)) < e.size {
			break // the archive ends here
		}
	}
	_ = archive.Close() // which knows that something is missing
	if err := encrypted.Close(); err != nil {
		t.Fatal(err)
	}
	return sealed.Bytes()
}

// Anybody can make a backup for a key that they know. What is not exactly one is refused,
// and leaves nothing, neither in the directory nor beside it.
func TestMalformed(t *testing.T) {
	m := makeBackup(t)
	find := func(all []entry, prefix string) int {
		i := slices.IndexFunc(all, func(e entry) bool { return strings.HasPrefix(e.name, prefix) })
		if i < 0 {
			t.Fatalf("the backup has no %s", prefix)
		}
		return i
	}
	without := func(prefix string) func([]entry) []entry {
		return func(all []entry) []entry { return slices.Delete(all, find(all, prefix), find(all, prefix)+1) }
	}
	with := func(prefix string, change func(*entry)) func([]entry) []entry {
		return func(all []entry) []entry { change(&all[find(all, prefix)]); return all }
	}
	added := func(e entry) func([]entry) []entry {
		e.size = max(e.size, int64(len(e.data)))
		return func(all []entry) []entry { return append(all, e) }
	}
	say := func(text string) func(*entry) {
		return func(e *entry) { e.data, e.size = text, int64(len(text)) }
	}
	rename := func(name string) func(*entry) { return func(e *entry) { e.name = name } }
	for what, test := range map[string]struct {
		change func([]entry) []entry
		says   string
	}{
		"nothing":          {func([]entry) []entry { return nil }, "lacks signerd.yaml"},
		"no configuration": {without("signerd.yaml"), "lacks signerd.yaml"},
		"no host key":      {without("host_key"), "lacks host_key"},
		"no keys":          {without("authorized_keys"), "lacks authorized_keys"},
		"no trusted CA":    {without("trust/"), "old.crt"},
		"no state":         {without("authority/state.json"), "restoring the CA"},
		"no CA at all": {func(all []entry) []entry {
			return slices.DeleteFunc(all, func(e entry) bool { return strings.HasPrefix(e.name, "authority/") })
		}, "restoring the CA"},
		"another order":               {func(all []entry) []entry { slices.Reverse(all[:3]); return all }, "lacks signerd.yaml"},
		"the ledger first":            {func(all []entry) []entry { slices.Reverse(all); return all }, "lacks signerd.yaml"},
		"a configuration of nothing":  {with("signerd.yaml", say("")), "no documents"},
		"a configuration not of ours": {with("signerd.yaml", say("cluster: prod-a\nshell: /bin/sh\n")), "shell"},
		"a trusted CA that is none":   {with("trust/", say("-----BEGIN")), "old.crt"},
		"a state of nothing":          {with("authority/state.json", say("{}")), "restoring the CA"},
		"a CA out of its directory":   {with("authority/state.json", rename("authority/../../state.json")), "a CA has no file"},
		"a CA elsewhere":              {with("authority/state.json", rename("authority//etc/passwd")), "a CA has no file"},
		"a program as CA":             {with("authority/state.json", rename("authority/active.key")), "a CA has no file"},
		"a ledger out of its place":   {added(entry{name: "ledger/../2026-11-22.jsonl", data: "x"}), "which is no file of a ledger"},
		"a stray file":                {added(entry{name: "etc/cron.d/mine", data: "x"}), "which is no file of a ledger"},
		"a file of the ledger twice":  {added(entry{name: "ledger/2026-11-22.jsonl", data: "x"}), "file exists"},
		"a link in the ledger":        {added(entry{name: "ledger/2026-11-23.jsonl", kind: tar.TypeSymlink}), "which is no file of a backup"},
		"much more than fits":         {with("host_key", say(strings.Repeat("x", largestInCore+1))), "bytes of host_key"},
		"less than it says":           {added(entry{name: "ledger/2026-11-23.jsonl", data: "x", size: 100}), "unexpected EOF"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			_, err := m.restore(m.seal(t, test.change(m.entries(t))), dir)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %q", err, test.says)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
	// The same way round, unchanged, it is one.
	if _, err := m.restore(m.seal(t, m.entries(t)), t.TempDir()); err != nil {
		t.Error(err)
	}
}

// Wherever a backup ends too early, or a bit of it is other, nothing of it counts.
func TestDamaged(t *testing.T) {
	m := makeBackup(t)
	for i := range 60 {
		at := len(m.sealed) * i / 60
		flipped := slices.Clone(m.sealed)
		flipped[at] ^= 4
		for what, sealed := range map[string][]byte{fmt.Sprintf("cut off at %d", at): m.sealed[:at], fmt.Sprintf("another bit at %d", at): flipped} {
			dir := t.TempDir()
			if _, err := m.restore(sealed, dir); err == nil {
				t.Error(what)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("%s: it left %v, %v", what, left, err)
			}
		}
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Restore(bytes.NewReader(m.sealed), filepath.Join(t.TempDir(), "signerd.yaml"), m.fingerprint, []age.Identity{stranger}, Changes{}, now)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); !ok {
		t.Errorf("another key: %v", err)
	}
}

// FuzzRestore: whatever a backup holds, it is the signer whose fingerprint was asked for,
// or nothing is left of it.
func FuzzRestore(f *testing.F) {
	m := makeBackup(f)
	decrypted, err := age.Decrypt(bytes.NewReader(m.sealed), m.key)
	if err != nil {
		f.Fatal(err)
	}
	archive, err := io.ReadAll(decrypted)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(archive)
	f.Add(archive[:1024])
	f.Fuzz(func(t *testing.T, archive []byte) {
		var sealed bytes.Buffer
		encrypted, err := age.Encrypt(&sealed, m.key.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := encrypted.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := encrypted.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		restored, err := m.restore(sealed.Bytes(), dir)
		if err == nil {
			if restored.Authority.Active().Fingerprint() != m.fingerprint {
				t.Fatal("another CA")
			}
			return
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Fatalf("it left %v, %v", left, err)
		}
	})
}
