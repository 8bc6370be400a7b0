package integration

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/signerd/signerd/internal/need"

	zx509 "github.com/zmap/zcrypto/x509"
)

// Verifiers that others wrote take the certificates for what they are for, and
// for nothing else.
func TestOutsideVerifiers(t *testing.T) {
	t.Parallel()
	need.Programs(t, "certtool")
	for _, identity := range []string{"", "identity: spiffe://prod.example\n", "identity: netsy://my-cluster\n"} {
		l := newCluster(t, identity)
		newClient(t, l, "kubemaster-07.example.com")
		if _, err := l.Run("", "openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "rsa.key", "-subj", "/CN=x", "-out", "rsa.csr"); err != nil {
			t.Fatal(err)
		}
		write(t, l.Path("kubemaster-rsa.crt"), ssh(t, l, read(t, l.Path("rsa.csr")), "kubemaster-rsa"))
		for path, server := range map[string]bool{
			"kubemaster-07.example.com.crt": false, "kubemaster-rsa.crt": false, "etcd-1/member.crt": true,
		} {
			for purpose, want := range map[string]bool{"sslclient": true, "sslserver": server} {
				_, err := l.Run("", "openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.crt", path)
				if (err == nil) != want {
					t.Errorf("%s%s as %s: %v; want %v", identity, path, purpose, err, want)
				}
			}
			const clientAuth, serverAuth = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"
			for purpose, want := range map[string]bool{clientAuth: true, serverAuth: server} {
				_, err := l.Run("", "certtool", "--verify", "--verify-profile", "medium", "--verify-purpose", purpose, "--load-ca-certificate", "ca.crt", "--infile", path)
				if (err == nil) != want {
					t.Errorf("%s%s: certtool as %s: %v; want %v", identity, path, purpose, err, want)
				}
			}
			for _, finding := range findings(t, l.Path(path), identity) {
				t.Errorf("%s%s: zlint %s", identity, path, finding)
			}
		}
		for _, finding := range findings(t, l.Path("ca.crt"), identity) {
			t.Errorf("%sca.crt: zlint %s", identity, finding)
		}
	}
}

// findings gives what zlint's RFC lints say of a certificate. Left out are
// single-label DNS names, which hosts here have, and for identities without a
// dot the rule that a URI's host is an FQDN (RFC 5280, 4.2.1.6).
func findings(t *testing.T, path, identity string) []string {
	t.Helper()
	excluded := []string{"n_san_iana_pub_suffix_empty"}
	if identity != "identity: spiffe://prod.example\n" {
		excluded = append(excluded, "e_ext_san_uri_host_not_fqdn_or_ip")
	}
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480, lint.RFC8813, lint.RFC5891, lint.RFC3279, lint.Community},
		ExcludeNames:   excluded,
	})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(read(t, path)))
	certificate, err := zx509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for name, result := range zlint.LintCertificateEx(certificate, registry).Results {
		if result.Status >= lint.Notice {
			found = append(found, fmt.Sprintf("%s: %s %s", name, result.Status, result.Details))
		}
	}
	return found
}

// The gate of lints can fail: a key usage that RFC 8813 forbids is found.
func TestLintGateFindsFaults(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	if _, err := l.Run("", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "bad.key", "-out", "bad.crt",
		"-subj", "/CN=bad", "-addext", "keyUsage=critical,keyEncipherment"); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, l.Path("bad.crt"), ""); len(found) == 0 {
		t.Error("a P-256 certificate with keyEncipherment passes")
	}
}

// CAs that others made are taken over, and what they then sign opens a real
// etcd that trusts them.
func TestImportedCAs(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"openssl-rsa-4096": {"-newkey", "rsa:4096", "-subj", "/CN=etcd-ca"},
		"kubeadm": {"-newkey", "rsa:2048", "-subj", "/CN=etcd-ca", "-config", "/dev/null", "-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign",
			"-addext", "basicConstraints=critical,CA:TRUE", "-addext", "subjectKeyIdentifier=hash", "-addext", "subjectAltName=DNS:etcd-ca"},
		"pathlen-0": {"-newkey", "rsa:2048", "-subj", "/CN=old", "-config", "/dev/null", "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"},
		"no-ski": {"-newkey", "rsa:2048", "-subj", "/CN=bare", "-config", "/dev/null", "-addext", "basicConstraints=CA:TRUE",
			"-addext", "subjectKeyIdentifier=none", "-addext", "authorityKeyIdentifier=none"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "")
			if _, err := l.Run("", "openssl", append([]string{"req", "-x509", "-nodes", "-days", "3650", "-keyout", "old.key", "-out", "old.crt"}, args...)...); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Run("", "sh", "-c", "rm -r authority && chmod 600 old.key"); err != nil {
				t.Fatal(err)
			}
			out, err := l.Run("", l.Binary, "ca", "import", "--config", "signerd.yaml", "--cert", "old.crt", "--key", "old.key")
			if err != nil {
				t.Fatal(err)
			}
			t.Log(out)
			m := startCluster(t, l)
			newClient(t, l, "kubemaster-01")
			if _, err := l.Ctl("kubemaster-01", "put", "a", "b"); err != nil {
				t.Error(err)
			}
			ssh(t, l, "", "get-peers")
			block, _ := pem.Decode([]byte(read(t, filepath.Join(m.Dir, "member.crt"))))
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil || len(c.AuthorityKeyId) == 0 {
				t.Errorf("the member's certificate has no authority key identifier: %v", err)
			}
		})
	}
}
