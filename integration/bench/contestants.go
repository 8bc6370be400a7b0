package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/signerd/signerd/integration/lab"
)

// contestant is a server that signs, and how to reach it.
type contestant struct {
	name    string
	share   float64 // of the certificates that a round asks of the fast ones
	kinds   []exchange
	address string
	login   string // of the stock ssh; empty: none
	past    string // directory of what it remembers; empty: nothing
	start   func() (*lab.Process, error)
	dial    dialer
}

var both = []exchange{curve25519, mlkem}

// The names in the results.
const (
	bare       = "bare"
	gliderlabs = "gliderlabs"
	proposed   = "bare, X25519 as proposed"
	onMemory   = "signerd"
	onDisk     = "signerd, ledger on disk"
	script     = "sshd + bash + openssl"
	stepCA     = "step-ca"
	cfssl      = "cfssl"
)

// contestants are those that are asked with ssh.
func (a *arena) contestants() ([]*contestant, error) {
	ssh := func(name, program string, last int) *contestant {
		address := fmt.Sprintf("%s:2222", a.memory.Address(last))
		return &contestant{
			name: name, share: 1, kinds: both, address: address, login: "signer", dial: dialSSH(address, a.config),
			start: func() (*lab.Process, error) {
				return a.start(a.memory.Path(program+".log"), a.program(program), "-listen", address, "-host-key", a.memory.Path("host_key"),
					"-client-key", a.memory.Path("operator.pub"), "-ca-cert", a.caPath("crt"), "-ca-key", a.caPath("key"))
			},
		}
	}
	sshd, err := a.script()
	return []*contestant{
		ssh(bare, "bare", 2), ssh(gliderlabs, "gliderlabs", 3), ssh(proposed, "proposed", 4),
		a.signerd(onMemory, a.memory), a.signerd(onDisk, a.disk), sshd,
	}, err
}

// authorities are those that are asked with HTTPS. They take minutes to build
// the first time.
func (a *arena) authorities() ([]*contestant, error) {
	step, err := a.stepCA()
	if err != nil {
		return nil, err
	}
	cloudflare, err := a.cfssl()
	return []*contestant{step, cloudflare}, err
}

func (a *arena) signerd(name string, l *lab.Lab) *contestant {
	address := l.Address(1) + ":2222"
	return &contestant{
		name: name, share: 1, kinds: both, address: address, login: "signer", past: l.Path("ledger"), dial: dialSSH(address, a.config),
		start: func() (*lab.Process, error) {
			return a.start(l.Path("signerd.log"), a.program("signerd"), "serve", "--config", l.Path("signerd.yaml"))
		},
	}
}

// script is sshd with a forced command. Its home directory is empty: bash
// reads .bashrc when sshd runs it.
func (a *arena) script() (*contestant, error) {
	dir := a.memory.Path("sshd")
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	address := a.memory.Address(7)
	config := fmt.Sprintf(`ListenAddress %s:2222
HostKey %s
AuthorizedKeysFile %s
ForceCommand %s
SetEnv HOME=%s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PrintLastLog no
MaxStartups 200
MaxSessions 64
LogLevel ERROR
`, address, a.memory.Path("host_key"), a.memory.Path("operator.pub"), filepath.Join(dir, "sign.sh"), filepath.Join(dir, "home"))
	if err := os.MkdirAll(filepath.Join(dir, "home"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	for from, to := range map[string]string{filepath.Join(benchDir(), "forced-command.sh"): "sign.sh", a.caPath("crt"): "ca.crt", a.caPath("key"): "ca.key"} {
		if _, err := a.memory.Run("", "cp", from, filepath.Join(dir, to)); err != nil {
			return nil, err
		}
	}
	if os.Getuid() == 0 {
		// sshd(8): the directory of its privilege separation.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	login := *a.config
	login.User = me.Username
	return &contestant{
		// Debian 12's sshd knows no ML-KEM.
		name: script, share: 0.02, kinds: []exchange{curve25519}, address: address + ":2222", login: me.Username, dial: dialSSH(address+":2222", &login),
		start: func() (*lab.Process, error) {
			return a.start(filepath.Join(dir, "log"), "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
		},
	}, nil
}

const stepProvisioner = "bench"

// stepCA is step-ca without a database.
func (a *arena) stepCA() (*contestant, error) {
	programs, err := lab.BuildCached("bench/step-ca", map[string]string{"step-ca": "github.com/smallstep/certificates/cmd/step-ca"})
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	const keyID = "bench"
	address := a.memory.Address(5) + ":9443"
	config, err := json.Marshal(map[string]any{
		"root": a.caPath("crt"), "crt": a.caPath("crt"), "key": a.caPath("key"), "address": address, "dnsNames": []string{a.memory.Address(5)},
		"logger": map[string]any{"format": "json"},
		"authority": map[string]any{"provisioners": []any{map[string]any{
			"type": "JWK", "name": stepProvisioner,
			"key": jose.JSONWebKey{Key: &key.PublicKey, KeyID: keyID, Algorithm: string(jose.ES256), Use: "sig"},
		}}},
	})
	if err != nil {
		return nil, err
	}
	dir := a.memory.Path("step-ca")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.json"), config, 0o600); err != nil {
		return nil, err
	}
	token, err := stepToken(key, keyID, "https://"+address+"/1.0/sign")
	if err != nil {
		return nil, err
	}
	body := func(r *request) (any, error) {
		t, err := token(r.name)
		return map[string]string{"csr": string(r.pem), "ott": t}, err
	}
	read := func(data []byte) (string, error) {
		var answer struct {
			Crt string `json:"crt"`
		}
		err := json.Unmarshal(data, &answer)
		return answer.Crt, err
	}
	return &contestant{
		name: stepCA, share: 0.5, kinds: both, address: address,
		dial: dialHTTPS("https://"+address+"/1.0/sign", &tls.Config{RootCAs: a.roots}, body, read),
		start: func() (*lab.Process, error) {
			return a.start(filepath.Join(dir, "log"), filepath.Join(programs, "step-ca"), filepath.Join(dir, "ca.json"))
		},
	}, nil
}

// cfssl serves clients that show a certificate.
func (a *arena) cfssl() (*contestant, error) {
	programs, err := lab.BuildCached("bench/cfssl", map[string]string{"cfssl": "github.com/cloudflare/cfssl/cmd/cfssl"})
	if err != nil {
		return nil, err
	}
	certPath, keyPath, pair, err := a.tlsPair()
	if err != nil {
		return nil, err
	}
	config := `{"signing": {"default": {"expiry": "24h", "usages": ["digital signature", "client auth"]}}}`
	if err := os.WriteFile(a.memory.Path("cfssl.json"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	host, port := a.memory.Address(6), "9443"
	body := func(r *request) (any, error) {
		return map[string]any{"certificate_request": string(r.pem), "hosts": []string{r.name}}, nil
	}
	read := func(data []byte) (string, error) {
		var answer struct {
			Result struct {
				Certificate string `json:"certificate"`
			} `json:"result"`
			Errors []any `json:"errors"`
		}
		err := json.Unmarshal(data, &answer)
		if err == nil && len(answer.Errors) > 0 {
			err = fmt.Errorf("%v", answer.Errors)
		}
		return answer.Result.Certificate, err
	}
	return &contestant{
		name: cfssl, share: 1, kinds: both, address: host + ":" + port,
		dial: dialHTTPS("https://"+host+":"+port+"/api/v1/cfssl/sign", &tls.Config{RootCAs: a.roots, Certificates: []tls.Certificate{pair}}, body, read),
		start: func() (*lab.Process, error) {
			return a.start(a.memory.Path("cfssl.log"), filepath.Join(programs, "cfssl"), strings.Fields("serve -loglevel 3 -address "+host+" -port "+port+
				" -ca "+a.caPath("crt")+" -ca-key "+a.caPath("key")+" -config "+a.memory.Path("cfssl.json")+
				" -tls-cert "+certPath+" -tls-key "+keyPath+" -mutual-tls-ca "+a.caPath("crt"))...)
		},
	}, nil
}
