package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/integration/lab"
)

// arena is where the servers are measured: their programs, one CA, one host
// key, one client key.
type arena struct {
	programs string // directory of what was built
	memory   *lab.Lab
	disk     *lab.Lab
	config   *ssh.ClientConfig
	requests []*request
	roots    *x509.CertPool // the CA that all sign with
	turn     int            // whose turn it is to ask
	running  []*lab.Process
	dirs     []string
}

// generous lets one machine be many clients. What costs something is done all
// the same: each connection is counted for its source.
const generous = `retention: 400d
limits:
  per_source: 4096
  per_source_unauthenticated: 4096
  per_source_per_second: 100000
  connections: 4096
  unauthenticated: 4096
  sessions: 64
  sessions_per_connection: 1000000
  connection_life: 1h
  unused: 1h
  login_grace: 1m
`

// requestsInTurn is how many names ask in turn, so that none asks more often
// than signerd lets it.
const requestsInTurn = 3000

// newArena builds the programs and makes the files, below directories on a tmpfs
// and on a disk. Whoever calls it closes it, after an error too.
func newArena(memory, disk string) (*arena, error) {
	a := &arena{}
	for _, dir := range []*string{&memory, &disk} {
		made, err := os.MkdirTemp(*dir, "signerd-bench-")
		if err != nil {
			return a, err
		}
		a.dirs = append(a.dirs, made)
		if *dir, err = filepath.Abs(made); err != nil {
			return a, err
		}
	}
	a.programs = filepath.Join(disk, "bin")
	if err := os.Mkdir(a.programs, 0o755); err != nil {
		return a, err
	}
	for _, name := range []string{"bare", "gliderlabs"} {
		if err := lab.Build("", a.program(name), "./bench/"+name); err != nil {
			return a, err
		}
	}
	if err := buildProposed(a.program("proposed")); err != nil {
		return a, err
	}
	if err := lab.BuildSignerd(a.program("signerd")); err != nil {
		return a, err
	}
	var err error
	if a.memory, err = a.lab(filepath.Join(memory, "signerd"), "127.81.0"); err != nil {
		return a, err
	}
	if a.disk, err = a.lab(filepath.Join(disk, "signerd"), "127.82.0"); err != nil {
		return a, err
	}
	ca, err := os.ReadFile(a.caPath("crt"))
	if err != nil {
		return a, err
	}
	a.roots = x509.NewCertPool()
	if !a.roots.AppendCertsFromPEM(ca) {
		return a, errors.New("no certificate of the CA")
	}
	if a.config, err = a.memory.ClientConfig("operator"); err != nil {
		return a, err
	}
	for i := range requestsInTurn {
		r, err := newRequest(fmt.Sprintf("kubemaster-%d", i))
		if err != nil {
			return a, err
		}
		a.requests = append(a.requests, r)
	}
	return a, nil
}

// lab makes a signer's files. All have the first one's keys and CA.
func (a *arena) lab(dir, network string) (*lab.Lab, error) {
	l, err := lab.New(dir, network, lab.Etcd{}, a.program("signerd"), generous)
	if err != nil || a.memory == nil {
		return l, err
	}
	for _, name := range []string{"host_key", "operator", "authority", "authorized_keys"} {
		if err := os.RemoveAll(l.Path(name)); err != nil {
			return nil, err
		}
		if _, err := l.Run("", "cp", "-a", a.memory.Path(name), l.Path(name)); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (a *arena) program(name string) string { return filepath.Join(a.programs, name) }

func (a *arena) caPath(kind string) string { return a.memory.Path("authority/active." + kind) }

// tlsPair is a certificate by the CA for HTTPS servers and their clients.
func (a *arena) tlsPair() (certPath, keyPath string, pair tls.Certificate, err error) {
	l := a.memory
	certPath, keyPath = l.Path("https.crt"), l.Path("https.key")
	if _, err := l.NewRequest("https"); err != nil {
		return "", "", tls.Certificate{}, err
	}
	extensions := "subjectAltName=DNS:localhost,IP:127.81.0.5,IP:127.81.0.6\nextendedKeyUsage=serverAuth,clientAuth\n"
	if err := os.WriteFile(l.Path("https.ext"), []byte(extensions), 0o644); err != nil {
		return "", "", tls.Certificate{}, err
	}
	_, err = l.Run("", "openssl", "x509", "-req", "-in", "https.csr", "-CA", a.caPath("crt"), "-CAkey", a.caPath("key"),
		"-days", "2", "-extfile", "https.ext", "-out", certPath)
	if err != nil {
		return "", "", tls.Certificate{}, err
	}
	pair, err = tls.LoadX509KeyPair(certPath, keyPath)
	return certPath, keyPath, pair, err
}

// start runs a server on the processors that are the servers'.
func (a *arena) start(log, program string, args ...string) (*lab.Process, error) {
	p, err := lab.Start(log, nil, "taskset", append([]string{"--cpu-list", serverCPU, program}, args...)...)
	if err == nil {
		a.running = append(a.running, p)
	}
	return p, err
}

func (a *arena) close() {
	for _, p := range a.running {
		p.Kill()
	}
	for _, dir := range a.dirs {
		_ = os.RemoveAll(dir) // leaves a temporary directory at worst
	}
}
