// Package integration holds signerd to its promises on real etcd, with the stock
// ssh, openssl, certtool and etcdctl.
package integration

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/internal/need"
)

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

// build makes signerd and etcd, once for all tests.
var build = sync.OnceValues(func() (programs, error) {
	version := os.Getenv("SIGNERD_ETCD")
	if version == "" {
		version = lab.EtcdVersions[0]
	}
	etcd, err := lab.BuildEtcd(version)
	if err != nil {
		return programs{}, err
	}
	dir, err := os.MkdirTemp("", "signerd-integration-")
	if err != nil {
		return programs{}, err
	}
	binary := filepath.Join(dir, "signerd")
	return programs{etcd, binary, dir}, lab.BuildSignerd(binary)
})

type programs struct {
	etcd   lab.Etcd
	binary string
	dir    string
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if p, _ := build(); p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
	os.Exit(code)
}

var networks atomic.Int32

// newNetwork gives a lab addresses of its own: tests of two packages, or runs,
// must not meet.
func newNetwork() string {
	return fmt.Sprintf("127.%d.%d", 100+os.Getpid()%100, networks.Add(1))
}

// generous limits let one machine be many clients.
const generous = `limits:
  per_name_per_hour: 0
  exempt: [127.0.0.0/8]
  connections: 2000
  unauthenticated: 2000
`

// newLab makes a lab on a network of its own; nothing runs yet. extra is added
// to signerd.yaml.
func newLab(t *testing.T, extra string) *lab.Lab {
	t.Helper()
	return usualLab(t, generous+extra)
}

// usualLab is newLab with the limits that are in force by default, but for what extra says.
func usualLab(t *testing.T, extra string) *lab.Lab {
	t.Helper()
	need.Programs(t, "ssh", "ssh-keygen", "openssl")
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(t.TempDir(), newNetwork(), p.etcd, p.binary, extra)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			logs, _ := filepath.Glob(l.Path("*.log"))
			for _, path := range logs {
				data, _ := os.ReadFile(path)
				t.Logf("%s:\n%s", filepath.Base(path), data[max(0, len(data)-2000):])
			}
		}
	})
	return l
}

// newCluster is a lab with one member of etcd and a running signer.
func newCluster(t *testing.T, extra string) *lab.Lab {
	t.Helper()
	l := newLab(t, extra)
	startCluster(t, l)
	return l
}

// startCluster starts a lab's first member and its signer.
func startCluster(t *testing.T, l *lab.Lab) *lab.Member {
	t.Helper()
	m, err := l.FoundMember()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StartEtcd(m, ""); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	return m
}

// newSigner is a lab with a running signer whose etcd is never there, and a
// request to ask it with.
func newSigner(t *testing.T) (l *lab.Lab, csr string) {
	t.Helper()
	l = newLab(t, "")
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	csr, err := l.NewRequest("client")
	if err != nil {
		t.Fatal(err)
	}
	return l, csr
}

// ssh asks with the stock client and must succeed.
func ssh(t *testing.T, l *lab.Lab, stdin string, args ...string) string {
	t.Helper()
	out, err := l.SSH(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused asks with the stock client and must get a status and a sentence, and
// nothing on stdout.
func refused(t *testing.T, l *lab.Lab, status int, sentence, stdin string, args ...string) {
	t.Helper()
	out, err := l.SSH(stdin, args...)
	if got := lab.ExitCode(err); got != status || out != "" || !strings.Contains(err.Error(), sentence) {
		t.Errorf("%v: status %d, stdout %q, %v; want %d and %q", args, got, out, err, status, sentence)
	}
}

// newClient gets a certificate for a name, as the runbook does: NAME.key and
// NAME.crt.
func newClient(t *testing.T, l *lab.Lab, name string) {
	t.Helper()
	csr, err := l.NewRequest(name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, l.Path(name+".crt"), ssh(t, l, csr, name))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// eventually polls until a condition holds.
func eventually(t *testing.T, atMost time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(atMost); !holds(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s", what, atMost)
		}
	}
}

// get opens an HTTPS connection with a certificate that is always sent, whether
// the server asks for its issuer or not, and gives the status.
func get(t *testing.T, l *lab.Lab, url, certificate string) (int, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, l.Path("ca.crt"))))
	config := &tls.Config{RootCAs: roots}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate+".crt", certificate+".key")
		if err != nil {
			t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
