package sshclient

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/signerd/signerd/internal/wire"
)

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A host key is known by its fingerprint or else by a file.
func TestHostKey(t *testing.T) {
	key, other := newKey(t).PublicKey(), newKey(t).PublicKey()
	const host = "10.0.0.11:2222"
	remote := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 11), Port: 2222}
	file := func(line string) string {
		path := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := file(KnownHostsLine(host, key)), file(KnownHostsLine(host, other))
	hashed := file(knownhosts.HashHostname(knownhosts.Normalize(host)) + " " + string(ssh.MarshalAuthorizedKey(key)))
	for what, test := range map[string]struct {
		known HostKey
		says  string // empty: it is taken
	}{
		"the pin":                              {HostKey{Fingerprint: ssh.FingerprintSHA256(key)}, ""},
		"another pin":                          {HostKey{Fingerprint: ssh.FingerprintSHA256(other)}, "not the pinned"},
		"another pin, in spite of the file":    {HostKey{Fingerprint: ssh.FingerprintSHA256(other), Files: []string{ours}}, "not the pinned"},
		"the file":                             {HostKey{Files: []string{filepath.Join(t.TempDir(), "missing"), ours}}, ""},
		"the file, hashed":                     {HostKey{Files: []string{hashed}}, ""},
		"another key in the file":              {HostKey{Files: []string{theirs}}, "has another"},
		"nobody knows":                         {HostKey{}, "is unknown"},
		"a file that is none":                  {HostKey{Files: []string{file("@@@ nonsense\n")}}, "host key of"},
		"the file has it for another host":     {HostKey{Files: []string{file(KnownHostsLine("10.0.0.12:2222", key))}}, "is unknown"},
		"the file has it for the same at port": {HostKey{Files: []string{file(KnownHostsLine("10.0.0.11:22", key))}}, "is unknown"},
	} {
		err := test.known.check(host, remote, key)
		if test.says == "" && err != nil || test.says != "" && (!errors.Is(err, ErrHostKey) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v, want %q", what, err, test.says)
		}
		if _, unknown := errors.AsType[*UnknownKeyError](err); unknown != (test.says == "is unknown") {
			t.Errorf("%s: a person is asked: %v", what, unknown)
		}
	}
}

// script is what a server answers, and whether it ends the session.
type script func(command string, stdin []byte, channel ssh.Channel) (status uint32, ends bool)

func serve(t *testing.T, hostKey ssh.Signer, listed ssh.PublicKey, answer script) string {
	t.Helper()
	return serveChannels(t, hostKey, listed, func(conn ssh.Conn, channels <-chan ssh.NewChannel) {
		for offered := range channels {
			channel, requests, err := offered.Accept()
			if err != nil {
				return
			}
			request := <-requests
			var exec struct{ Command string }
			_ = ssh.Unmarshal(request.Payload, &exec)
			_ = request.Reply(true, nil)
			stdin, _ := io.ReadAll(channel)
			status, ends := answer(exec.Command, stdin, channel)
			if !ends {
				_ = conn.Close()
				return
			}
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			_ = channel.Close()
		}
	})
}

// serveChannels lets one key in, and gives each connection to do.
func serveChannels(t *testing.T, hostKey ssh.Signer, listed ssh.PublicKey, do func(ssh.Conn, <-chan ssh.NewChannel)) string {
	t.Helper()
	config := &ssh.ServerConfig{PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if conn.User() != wire.User || string(key.Marshal()) != string(listed.Marshal()) {
			return nil, errors.New("another one")
		}
		return nil, nil
	}}
	config.AddHostKey(hostKey)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			tcp, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				conn, channels, requests, err := ssh.NewServerConn(tcp, config)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				do(conn, channels)
			}()
		}
	}()
	return listener.Addr().String()
}

// A signer may have a host key that is RSA.
func TestRSAHostKey(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	hostKey, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	address := serve(t, hostKey, key.PublicKey(), func(string, []byte, ssh.Channel) (uint32, bool) { return 0, true })
	for what, known := range map[string]HostKey{
		"its own":   {Fingerprint: ssh.FingerprintSHA256(hostKey.PublicKey())},
		"another's": {Fingerprint: ssh.FingerprintSHA256(key.PublicKey())},
	} {
		c, err := Dial(t.Context(), Options{Address: address, Keys: []ssh.Signer{key}, HostKey: known})
		if err == nil {
			err = c.Close()
		}
		if right := what == "its own"; right && err != nil || !right && !errors.Is(err, ErrHostKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRun(t *testing.T) {
	hostKey, key := newKey(t), newKey(t)
	address := serve(t, hostKey, key.PublicKey(), func(command string, stdin []byte, channel ssh.Channel) (uint32, bool) {
		switch command {
		case "get-peers":
			_, _ = channel.Write([]byte("https://10.0.0.11:2379\n"))
			_, _ = channel.Stderr().Write([]byte("signerd: etcd is away\n"))
		case "etcd-2=10.0.0.12":
			_, _ = channel.Write(stdin)
		case "release a":
			_, _ = channel.Write([]byte("half an answer"))
			_, _ = channel.Stderr().Write([]byte("signerd: denied: not you\n"))
			return 77, true
		case "get-topology":
			_, _ = channel.Write(make([]byte, maxAnswer+1))
		case "get-certificate":
			_, _ = channel.Write([]byte("half an answer"))
			return 0, false
		}
		return 0, true
	})
	options := Options{Address: address, Keys: []ssh.Signer{key}, HostKey: HostKey{Fingerprint: ssh.FingerprintSHA256(hostKey.PublicKey())}}
	ask := func(line, stdin string) (string, string, error) {
		c, err := Dial(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		command, err := wire.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		out, note, err := c.Run(t.Context(), command, []byte(stdin))
		return string(out), note, err
	}
	if out, note, err := ask("get-peers", ""); out != "https://10.0.0.11:2379\n" || note != "etcd is away" || err != nil {
		t.Errorf("%q, %q, %v", out, note, err)
	}
	if out, _, err := ask("etcd-2=10.0.0.12", "a request"); out != "a request" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	out, _, err := ask("release a", "")
	if refused, ok := errors.AsType[*wire.Error](err); out != "" || !ok || refused.Status != wire.Denied || refused.Text != "denied: not you" {
		t.Errorf("%q, %v", out, err)
	}
	for _, line := range []string{"get-topology", "get-certificate"} { // too long, and half
		if out, _, err := ask(line, ""); out != "" || !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %d bytes, %v", line, len(out), err)
		}
	}
	stranger := options
	stranger.Keys = []ssh.Signer{newKey(t)}
	if _, err := Dial(t.Context(), stranger); !errors.Is(err, ErrLogin) {
		t.Errorf("another key: %v", err)
	}
	impostor := options
	impostor.HostKey.Fingerprint = ssh.FingerprintSHA256(key.PublicKey())
	if _, err := Dial(t.Context(), impostor); !errors.Is(err, ErrHostKey) {
		t.Errorf("another host key: %v", err)
	}
	nobody := options
	nobody.Address = "127.0.0.1:1"
	if _, err := Dial(t.Context(), nobody); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
}

// A signer that lets a key in and answers nothing more holds nobody up for longer than it
// was given.
func TestSilentSigner(t *testing.T) {
	hostKey, key := newKey(t), newKey(t)
	address := serveChannels(t, hostKey, key.PublicKey(), func(_ ssh.Conn, channels <-chan ssh.NewChannel) {
		for range channels { // no answer
		}
	})
	c, err := Dial(t.Context(), Options{Address: address, Keys: []ssh.Signer{key}, HostKey: HostKey{Fingerprint: ssh.FingerprintSHA256(hostKey.PublicKey())}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := c.Run(ctx, wire.Command{Verb: wire.GetPeers}, nil); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
}

func TestFindKeys(t *testing.T) {
	home := t.TempDir()
	if _, err := FindKeys(home); err == nil || !strings.Contains(err.Error(), "there is no SSH key in") {
		t.Errorf("without a key: %v", err)
	}
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home, ".ssh", "id_ed25519")
	for _, test := range []struct {
		block string
		mode  os.FileMode
		says  string
	}{
		{string(pem.EncodeToMemory(plain)), 0o600, ""},
		{string(pem.EncodeToMemory(locked)), 0o600, "has a passphrase; make a key without one"},
		{"nonsense", 0o600, "id_ed25519: ssh: no key found"},
		{string(pem.EncodeToMemory(plain)), 0o644, "id_ed25519"},
	} {
		if err := os.WriteFile(path, []byte(test.block), test.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		keys, err := FindKeys(home)
		if test.says == "" && (err != nil || len(keys) != 1) || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%v, %v; want %q", keys, err, test.says)
		}
	}
}
