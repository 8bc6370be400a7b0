package sshfront

import (
	"io"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/internal/wire"
)

// Nobody gets in without the key, as another user, or with a key that was only
// offered.
func TestLogin(t *testing.T) {
	s := newServer(t, nil)
	other := newKey()
	for what, try := range map[string]func() (*ssh.Client, error){
		"no key": func() (*ssh.Client, error) {
			return ssh.Dial("tcp", s.address, &ssh.ClientConfig{User: wire.User, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		},
		"another key":  func() (*ssh.Client, error) { return s.tryDial(wire.User, other) },
		"another user": func() (*ssh.Client, error) { return s.tryDial("root", s.key) },
		"a password": func() (*ssh.Client, error) {
			return ssh.Dial("tcp", s.address, &ssh.ClientConfig{User: wire.User, Auth: []ssh.AuthMethod{ssh.Password("")}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		},
		"a key that does not sign": func() (*ssh.Client, error) { return s.tryDial(wire.User, offered{s.key, other}, other) },
	} {
		if client, err := try(); err == nil {
			_ = client.Close()
			t.Errorf("%s: let in", what)
		}
	}
	client, err := s.tryDial(wire.User, other, s.key)
	if err != nil {
		t.Fatalf("the right key after another: %v", err)
	}
	_ = client.Close()
}

// offered shows one key and signs with another.
type offered struct {
	ssh.Signer
	signs ssh.Signer
}

func (o offered) Sign(r io.Reader, data []byte) (*ssh.Signature, error) { return o.signs.Sign(r, data) }

// The profiles differ in the key exchange, and neither takes what is weak.
func TestHandshakes(t *testing.T) {
	servers := map[Profile]*testServer{Compatible: newServer(t, nil), Strict: newServerWith(t, Strict, nil)}
	for _, test := range []struct {
		what               string
		config             ssh.Config
		compatible, strict bool
	}{
		{"a client of today", ssh.Config{}, true, true},
		{"curve25519", ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}}, true, false},
		{"group14 with SHA-1", ssh.Config{KeyExchanges: []string{ssh.InsecureKeyExchangeDH14SHA1}}, false, false},
		{"nistp256", ssh.Config{KeyExchanges: []string{ssh.KeyExchangeECDHP256}}, false, false},
		{"CBC", ssh.Config{Ciphers: []string{ssh.InsecureCipherAES128CBC}}, false, false},
		{"CTR with an encrypt-and-MAC", ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.HMACSHA256}}, false, false},
		{"CTR with encrypt-then-MAC", ssh.Config{Ciphers: []string{ssh.CipherAES128CTR}, MACs: []string{ssh.HMACSHA256ETM}}, true, true},
		{"chacha20", ssh.Config{Ciphers: []string{ssh.CipherChaCha20Poly1305}}, true, false},
	} {
		for profile, want := range map[Profile]bool{Compatible: test.compatible, Strict: test.strict} {
			s := servers[profile]
			client, err := ssh.Dial("tcp", s.address, &ssh.ClientConfig{
				Config: test.config, User: wire.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(s.key)},
				HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
			})
			if err == nil {
				_ = client.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s, %s: %v; want %v", profile, test.what, err, want)
			}
		}
	}
}

func TestProfiles(t *testing.T) {
	for _, p := range []Profile{Compatible, Strict} {
		if err := p.check(); err != nil {
			t.Error(err)
		}
	}
	if err := Profile("lax").check(); err == nil {
		t.Error("an unknown profile passes")
	}
	for _, name := range ssh.InsecureAlgorithms().PublicKeyAuths {
		for _, ours := range signatures {
			if ours == name {
				t.Errorf("%s is among the signatures", name)
			}
		}
	}
}
