package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/need"
)

// newAuthority makes a CA and gives its directory and its one generation.
func newAuthority(t *testing.T) (string, *Generation) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "authority")
	g, err := CreateAuthority(dir, "prod-a", "p256", noon)
	if err != nil {
		t.Fatal(err)
	}
	return dir, g
}

func TestCreateNeverTouchesACA(t *testing.T) {
	dir, g := newAuthority(t)
	if _, err := CreateAuthority(dir, "prod-a", "p256", noon); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second CA: %v", err)
	}
	loaded := must(LoadAuthority(dir, noon))
	if loaded.Active().Fingerprint() != g.Fingerprint() {
		t.Error("the CA is another one")
	}
	if target, err := os.Readlink(filepath.Join(dir, "active.key")); err != nil || target != g.ID+".key" {
		t.Errorf("active.key leads to %q, %v", target, err)
	}
	for name, want := range map[string]fs.FileMode{g.ID + ".key": 0o600, g.ID + ".crt": 0o644, "state.json": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", name, info.Mode(), err, want)
		}
	}
}

func TestUnknownKindOfCAKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authority")
	if _, err := CreateAuthority(dir, "prod-a", "rsa", noon); err == nil {
		t.Error("an RSA CA was made")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the refusal left a directory: %v", err)
	}
}

// A CA that is missing, half there, mismatched, expired or unreadable is not
// loaded, and the error says which file and what to do.
func TestLoadAuthority(t *testing.T) {
	_, other := newAuthority(t)
	otherKey := must(encodePrivateKey(other.key))
	for _, test := range []struct {
		what   string
		damage func(dir, id string) error
		now    time.Time
		want   string
	}{
		{"nothing at all", func(dir, _ string) error { return os.RemoveAll(dir) }, noon, "signerd ca create"},
		{"an empty directory", func(dir, _ string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) }, noon, "signerd ca create"},
		{"no state", func(dir, _ string) error { return os.Remove(filepath.Join(dir, "state.json")) }, noon, "no state.json"},
		{"no key", func(dir, id string) error { return os.Remove(filepath.Join(dir, id+".key")) }, noon, ".key is missing, its certificate is there"},
		{"no certificate", func(dir, id string) error { return os.Remove(filepath.Join(dir, id+".crt")) }, noon, ".crt is missing, its key is there"},
		{"neither", func(dir, id string) error {
			return errors.Join(os.Remove(filepath.Join(dir, id+".crt")), os.Remove(filepath.Join(dir, id+".key")))
		}, noon, "are missing"},
		{"the key of another", func(dir, id string) error { return os.WriteFile(filepath.Join(dir, id+".key"), otherKey, 0o600) }, noon, "the key is not the certificate's"},
		{"both of another", func(dir, id string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, id+".key"), otherKey, 0o600),
				os.WriteFile(filepath.Join(dir, id+".crt"), EncodeCertificate(other.Certificate.Raw), 0o644))
		}, noon, "it was exchanged"},
		{"an open key", func(dir, id string) error { return os.Chmod(filepath.Join(dir, id+".key"), 0o640) }, noon, "chmod 600"},
		{"an empty key", func(dir, id string) error { return os.Truncate(filepath.Join(dir, id+".key"), 0) }, noon, "no PEM private key"},
		{"a cut certificate", func(dir, id string) error { return os.Truncate(filepath.Join(dir, id+".crt"), 100) }, noon, "no PEM certificate"},
		{"a state of the future", func(dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"version":2,"generations":[]}`), 0o600)
		}, noon, "has the version 2"},
		{"a state with unknown members", func(dir, id string) error {
			return os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"version":1,"tenure":{"epoch":1,"signer":"a"},"x":1,"generations":[{"id":"`+id+`","role":"active"}]}`), 0o600)
		}, noon, "is damaged"},
		{"no generation", func(dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"version":1,"tenure":{"epoch":1,"signer":"a"},"generations":[]}`), 0o600)
		}, noon, "0 generations are active"},
		{"none active", func(dir, id string) error {
			return os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"version":1,"tenure":{"epoch":1,"signer":"a"},"generations":[{"id":"`+id+`","role":"passive"}]}`), 0o600)
		}, noon, "0 generations are active"},
		{"an unknown role", func(dir, id string) error {
			return os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"version":1,"tenure":{"epoch":1,"signer":"a"},"generations":[{"id":"`+id+`","role":"king"}]}`), 0o600)
		}, noon, "unknown role"},
		{"one generation twice", func(dir, id string) error {
			return os.WriteFile(filepath.Join(dir, "state.json"), fmt.Appendf(nil, `{"version":1,"tenure":{"epoch":1,"signer":"a"},"generations":[{"id":%q,"role":"active"},{"id":%q,"role":"passive"}]}`, id, id), 0o600)
		}, noon, "two generations are called"},
		{"expired", func(string, string) error { return nil }, noon.AddDate(caLife, 0, 1), "the CA expired at"},
		{"not yet valid", func(string, string) error { return nil }, noon.Add(-time.Hour), ErrEarly.Error()},
	} {
		dir, g := newAuthority(t)
		if err := test.damage(dir, g.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadAuthority(dir, test.now); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.what, err, test.want)
		}
	}
}

// A file of certificates is read whole or not at all.
func TestParseCertificates(t *testing.T) {
	_, g := newAuthority(t)
	pem := EncodeCertificate(g.Certificate.Raw)
	broken := bytes.Replace(pem, []byte("MI"), []byte("!!"), 1)
	for _, test := range []struct {
		what string
		data []byte
		want int
	}{
		{"one", pem, 1},
		{"two", slices.Concat(pem, pem), 2},
		{"text around", slices.Concat([]byte("# ours\n"), pem, []byte("# end\n")), 1},
		{"one and a cut one", slices.Concat(pem, pem[:100]), 0},
		{"a broken one between", slices.Concat(pem, broken, pem), 0},
		{"a key", must(encodePrivateKey(g.key)), 0},
		{"nothing", nil, 0},
	} {
		certificates, err := ParseCertificates(test.data)
		if len(certificates) != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d certificates, %v", test.what, len(certificates), err)
		}
	}
}

// The links of an authority are rebuilt from its state.
func TestLink(t *testing.T) {
	dir, g := newAuthority(t)
	link := filepath.Join(dir, "active.key")
	if err := errors.Join(os.Remove(link), os.Symlink("elsewhere", link)); err != nil {
		t.Fatal(err)
	}
	if _, err := must(LoadAuthority(dir, noon)).Recover(noon); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != g.ID+".key" {
		t.Errorf("active.key leads to %q, %v", target, err)
	}
}

// openssl runs the stock program in dir.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	need.Programs(t, "openssl")
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
}

// CAs as other tools make them are taken in, and sign; what could not act as
// one is refused and leaves nothing behind.
func TestImport(t *testing.T) {
	for _, test := range []struct {
		what string
		make func(t *testing.T, dir string)
		want string // in the refusal; empty: imported
		note bool   // it cannot cross-sign
	}{
		{"openssl, RSA-4096", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:4096", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=etcd-ca")
		}, "", false},
		// As kubeadm writes its etcd CA: PKCS #1, digitalSignature and
		// keyEncipherment beside certSign, a DNS name.
		{"kubeadm's", func(t *testing.T, dir string) {
			openssl(t, dir, "genrsa", "-traditional", "-out", "ca.key", "2048")
			openssl(t, dir, "req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=etcd-ca", "-config", "/dev/null",
				"-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign", "-addext", "basicConstraints=critical,CA:TRUE",
				"-addext", "subjectKeyIdentifier=hash", "-addext", "subjectAltName=DNS:etcd-ca")
		}, "", false},
		{"pathlen:0, EC with its parameters", func(t *testing.T, dir string) {
			openssl(t, dir, "ecparam", "-name", "prime256v1", "-genkey", "-out", "ca.key")
			openssl(t, dir, "req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/O=old/CN=old-ca", "-config", "/dev/null",
				"-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "subjectKeyIdentifier=hash")
		}, "", true},
		{"without SKI and key usage", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=bare", "-config", "/dev/null",
				"-addext", "basicConstraints=CA:TRUE", "-addext", "subjectKeyIdentifier=none", "-addext", "authorityKeyIdentifier=none")
		}, "", false},
		{"Ed25519", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=ed")
		}, "", false},
		{"no CA", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=server", "-config", "/dev/null",
				"-addext", "basicConstraints=critical,CA:FALSE")
		}, "CA:TRUE", false},
		{"the key of another", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=a")
			openssl(t, dir, "genrsa", "-out", "ca.key", "2048")
		}, "the key is not the certificate's", false},
		{"a CA that may not sign certificates", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=a", "-config", "/dev/null",
				"-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,digitalSignature")
		}, "keyCertSign", false},
		{"an encrypted key", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=a")
		}, "encrypted", false},
		{"RSA-1024", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=a")
		}, "1024 bits", false},
		{"an intermediate", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.crt", "-subj", "/CN=root")
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=sub", "-CA", "root.crt", "-CAkey", "root.key")
		}, "not self-signed", false},
		{"two certificates", func(t *testing.T, dir string) {
			openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=a")
			pem := must(os.ReadFile(filepath.Join(dir, "ca.crt")))
			if err := os.WriteFile(filepath.Join(dir, "ca.crt"), append(pem, pem...), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "2 certificates", false},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := t.TempDir()
			test.make(t, dir)
			now := time.Now()
			target := filepath.Join(dir, "authority")
			g, err := ImportAuthority(target, must(os.ReadFile(filepath.Join(dir, "ca.crt"))), must(os.ReadFile(filepath.Join(dir, "ca.key"))), now)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v; want %q", err, test.want)
				}
				if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the refusal left a directory: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if g.CanCrossSign() == test.note {
				t.Errorf("it can cross-sign: %v", g.CanCrossSign())
			}
			s := openTestSigner(t, dir, "", now)
			issued, err := s.Issue(t.Context(), now, Order{Subject: must(everyClient.Subject("kubemaster-01")), Key: must(PublicKeyOf(p256Key.Public()))})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "client.crt"), issued.PEM, 0o644); err != nil {
				t.Fatal(err)
			}
			openssl(t, dir, "verify", "-purpose", "sslclient", "-CAfile", "ca.crt", "client.crt")
		})
	}
}
