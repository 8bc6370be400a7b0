package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/integration/lab"
)

// victim is a signer with its usual limits, and one client that must be served whatever
// others do to it.
type victim struct {
	*lab.Lab
	address      string
	honest, evil *gossh.ClientConfig
	request      string
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	l := usualLab(t, "limits: {per_name_per_hour: 0}\n")
	if _, err := l.Run("", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "evil"); err != nil {
		t.Fatal(err)
	}
	if err := l.Authorize(`permit="get-*,kubemaster-evil"`, "evil"); err != nil {
		t.Fatal(err)
	}
	if err := l.StartSigner(); err != nil {
		t.Fatal(err)
	}
	v := &victim{Lab: l, address: l.Address(1) + ":2222"}
	for name, config := range map[string]**gossh.ClientConfig{"operator": &v.honest, "evil": &v.evil} {
		var err error
		if *config, err = l.ClientConfig(name); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if v.request, err = l.NewRequest("kubemaster-01"); err != nil {
		t.Fatal(err)
	}
	return v
}

// source gives one of a thousand addresses on loopback.
func source(i int) string { return fmt.Sprintf("127.210.%d.%d", i%1000/250, 1+i%250) }

// dial connects from an address.
func (v *victim) dial(ctx context.Context, from string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", v.address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	return c, c.SetDeadline(time.Now().Add(20 * time.Second))
}

// login logs in from an address.
func (v *victim) login(ctx context.Context, from string, config *gossh.ClientConfig, through func(net.Conn) net.Conn) (*gossh.Client, error) {
	c, err := v.dial(ctx, from)
	if err != nil {
		return nil, err
	}
	if through != nil {
		c = through(c)
	}
	login, channels, requests, err := gossh.NewClientConn(c, v.address, config)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return gossh.NewClient(login, channels, requests), nil
}

// renews is one renewal by the honest client, from its own address.
func (v *victim) renews(ctx context.Context) error {
	return v.certifies(ctx, "127.220.0.1", v.honest, "kubemaster-01", v.request)
}

// certifies logs in from an address and gets a name its certificate.
func (v *victim) certifies(ctx context.Context, from string, config *gossh.ClientConfig, name, request string) error {
	client, err := v.login(ctx, from, config, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	out, said, status, err := lab.Ask(client, name, request)
	if err == nil && (status != 0 || !strings.Contains(out, "BEGIN CERTIFICATE")) {
		err = fmt.Errorf("status %d: %s", status, said)
	}
	return err
}

// silent waits without a word for as long as it may.
func (v *victim) silent(ctx context.Context, i int) error {
	c, err := v.dial(ctx, source(i))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(io.Discard, c)
	return err
}

// drips sends its version a byte at a time, and then goes on so.
func (v *victim) drips(ctx context.Context, i int) error {
	c, err := v.dial(ctx, source(i))
	if err != nil {
		return err
	}
	defer c.Close()
	for text := "SSH-2.0-x\r\n"; err == nil; text = text[1:] + "\x00" {
		_, err = c.Write([]byte(text[:1]))
		<-time.After(200 * time.Millisecond)
	}
	return err
}

// knocks connects and goes away, from few addresses or from many.
func (v *victim) knocks(sources int) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		c, err := v.dial(ctx, source(i%sources))
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// inSession logs in with the permitted key, and does something with the connection. It does
// not wait for what waits for ever: x/crypto/ssh does for a channel that is opened at the very
// moment at which the connection ends.
func (v *victim) inSession(do func(*gossh.Client) error) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		client, err := v.login(ctx, source(i), v.evil, nil)
		if err != nil {
			return err
		}
		defer client.Close()
		done := make(chan error, 1)
		go func() { done <- do(client) }()
		ended := make(chan struct{})
		context.AfterFunc(ctx, func() { time.AfterFunc(5*time.Second, func() { close(ended) }) })
		select {
		case err := <-done:
			return err
		case <-ended:
			return errors.New("the library waits for ever")
		}
	}
}

// opensChannels opens channels of all kinds until it is stopped.
func opensChannels(client *gossh.Client) error {
	for n := range 3000 {
		kind := []string{"session", "direct-tcpip", "x"}[n%3]
		if _, requests, err := client.OpenChannel(kind, make([]byte, 100)); err == nil {
			go gossh.DiscardRequests(requests)
		} else if refused, ok := errors.AsType[*gossh.OpenChannelError](err); !ok {
			return err
		} else if refused.Reason == 0 {
			return refused
		}
	}
	return nil
}

// setsVariables fills the environment of a session that is never begun.
func setsVariables(client *gossh.Client) error {
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	value := strings.Repeat("x", 30_000)
	for n := range 10_000 {
		if err := session.Setenv("A"+strconv.Itoa(n), value); err != nil && !strings.Contains(err.Error(), "setenv failed") {
			return err
		}
	}
	return nil
}

// asksGlobally sends global requests, and does not wait for answers.
func asksGlobally(client *gossh.Client) error {
	for range 100_000 {
		if _, _, err := client.SendRequest("x@y", false, make([]byte, 20_000)); err != nil {
			return err
		}
	}
	return nil
}

// asksAlways asks for its certificate as fast as it can.
func (v *victim) asksAlways(client *gossh.Client) error {
	for {
		if _, _, _, err := lab.Ask(client, "kubemaster-evil", v.request); err != nil {
			return err
		}
	}
}

// rekeys exchanges keys every few bytes.
func (v *victim) rekeys(ctx context.Context, i int) error {
	config := *v.evil
	config.RekeyThreshold = 256
	client, err := v.login(ctx, source(i), &config, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	for range 10_000 {
		if _, _, err := client.SendRequest("x@y", true, make([]byte, 200)); err != nil {
			return err
		}
	}
	return nil
}

// hugeKey is a public key of 60,000 bits that nobody has the private half of.
type hugeKey struct{ gossh.Signer }

func (hugeKey) PublicKey() gossh.PublicKey { return hugeRSA{} }

// With a signature algorithm that is taken the server has to read the key.
func (hugeKey) Algorithms() []string { return []string{gossh.KeyAlgoRSASHA512} }

func (k hugeKey) SignWithAlgorithm(random io.Reader, data []byte, _ string) (*gossh.Signature, error) {
	return k.Sign(random, data)
}

type hugeRSA struct{}

func (hugeRSA) Type() string { return gossh.KeyAlgoRSA }
func (hugeRSA) Marshal() []byte {
	n := new(big.Int).Lsh(big.NewInt(1), 60_000)
	return gossh.Marshal(struct {
		Name string
		E, N *big.Int
	}{gossh.KeyAlgoRSA, big.NewInt(65537), n.Add(n, big.NewInt(1))})
}
func (hugeRSA) Verify([]byte, *gossh.Signature) error { return nil }

// offers tries wrong keys, as many as it may, of a kind.
func (v *victim) offers(huge bool) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		config := *v.evil
		var keys []gossh.Signer
		for range 4 {
			_, private, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			key, err := gossh.NewSignerFromKey(private)
			if err != nil {
				return err
			}
			if huge {
				key = hugeKey{key}
			}
			keys = append(keys, key)
		}
		config.Auth = []gossh.AuthMethod{gossh.PublicKeys(keys...)}
		client, err := v.login(ctx, source(i), &config, nil)
		if err == nil {
			_ = client.Close()
			return errLetIn
		}
		return err
	}
}

var errLetIn = errors.New("a wrong key is let in")

// garbler changes a bit of what is sent now and then, or repeats or drops a piece.
type garbler struct {
	net.Conn
	random *mathrand.Rand
}

func (g garbler) Write(p []byte) (int, error) {
	sent := append([]byte(nil), p...)
	switch g.random.IntN(8) {
	case 0:
		sent[g.random.IntN(len(sent))] ^= 1 << g.random.IntN(8)
	case 1:
		sent = append(sent, sent...)
	case 2:
		sent = sent[:g.random.IntN(len(sent))]
	case 3:
		at := g.random.IntN(len(sent))
		for i := at; i < len(sent); i++ {
			sent[i] = byte(g.random.Uint32())
		}
	}
	if _, err := g.Conn.Write(sent); err != nil {
		return 0, err
	}
	return len(p), nil
}

// garbles is an honest client behind a line that is not.
func (v *victim) garbles(seed uint64) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		random := mathrand.New(mathrand.NewPCG(seed, uint64(i)))
		client, err := v.login(ctx, source(i), v.evil, func(c net.Conn) net.Conn { return garbler{c, random} })
		if err != nil {
			return err
		}
		defer client.Close()
		_, _, _, err = lab.Ask(client, "kubemaster-evil", v.request)
		return err
	}
}
