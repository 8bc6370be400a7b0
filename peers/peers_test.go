package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/wire"
)

func address(t *testing.T, text string) wire.Address {
	t.Helper()
	a, err := wire.ParseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPeerURL(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.12": "https://10.0.0.12:2380", "fd00::12": "https://[fd00::12]:2380", "db2.example": "https://db2.example:2380",
	} {
		url := PeerURL(address(t, text))
		if url != want || !anyAt([]string{url}, address(t, text)) {
			t.Errorf("the peer URL of %s is %s, want %s", text, url, want)
		}
	}
}

// A member is found by any of its URLs, at whatever port, and by no other's.
func TestUses(t *testing.T) {
	m := Member{PeerURLs: []string{"https://10.0.0.12:2399", "https://[fd00::12]:2380"}, ClientURLs: []string{"https://db2.example:2379", "::nonsense"}}
	for text, want := range map[string]bool{"10.0.0.12": true, "fd00::12": true, "db2.example": true, "10.0.0.1": false, "db.example": false} {
		if m.uses(address(t, text)) != want {
			t.Errorf("the member uses %s: %v, want %v", text, !want, want)
		}
	}
}

// Voters that have started are peers; learners and those that are still to come
// are not.
func TestClientURLs(t *testing.T) {
	members := []Member{
		{Name: "etcd-1", ClientURLs: []string{"https://10.0.0.11:2379", "https://127.0.0.1:2379"}},
		{Name: "etcd-2", ClientURLs: []string{"https://10.0.0.12:2379"}, Learner: true},
		{PeerURLs: []string{"https://10.0.0.13:2380"}},
	}
	if got := ClientURLs(members); !slices.Equal(got, []string{"https://10.0.0.11:2379"}) {
		t.Errorf("the peers are %v", got)
	}
}

func TestNameOf(t *testing.T) {
	intents := []intent{{Name: "etcd-5", PeerURL: "https://10.0.0.12:2380"}, {Name: "etcd-2", PeerURL: "https://10.0.0.12:2380"}}
	for _, test := range []struct {
		member Member
		want   string
	}{
		{Member{Name: "etcd-9", PeerURLs: []string{"https://10.0.0.12:2380"}}, "etcd-9"},
		{Member{PeerURLs: []string{"https://10.0.0.12:2380"}}, "etcd-5"}, // the later intent is first
		{Member{PeerURLs: []string{"https://10.0.0.13:2380"}}, ""},
	} {
		if got := nameOf(test.member, intents); got != test.want {
			t.Errorf("%+v is %q, want %q", test.member, got, test.want)
		}
	}
}

// What goes wrong on the way to etcd is said in the words of the layer that it
// went wrong in, and the same each time.
func TestDiagnose(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	plain := httptest.NewServer(nil)
	defer plain.Close()
	for _, test := range []struct {
		what, url string
		roots     *x509.CertPool
		want      string
	}{
		{"nobody there", "https://127.0.0.1:1", trusted, "connection refused"},
		{"another CA", server.URL, x509.NewCertPool(), "x509: certificate signed by unknown authority"},
		{"a certificate that is refused", server.URL, trusted, "tls: "},
		{"plain HTTP", strings.Replace(plain.URL, "http:", "https:", 1), trusted, "tls: first record does not look like a TLS handshake"},
	} {
		c, err := Connect([]string{test.url}, Credentials{
			Roots:       func() *x509.CertPool { return test.roots },
			Certificate: func(context.Context) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		first := c.away(t.Context(), "asking", context.DeadlineExceeded)
		if !errors.Is(first, ErrAway) || !strings.Contains(first.Error(), test.want) || !strings.Contains(first.Error(), test.url) {
			t.Errorf("%s: %v; want %q", test.what, first, test.want)
		}
		if again := c.away(t.Context(), "asking", context.DeadlineExceeded); again.Error() != first.Error() {
			t.Errorf("%s: %v, and then %v", test.what, first, again)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Whoever waits for another's change gives up with its request.
func TestWaitingEndsWithTheRequest(t *testing.T) {
	c, err := Connect([]string{"https://127.0.0.1:1"}, Credentials{Roots: x509.NewCertPool})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Remove(ctx, "etcd-1"); !errors.Is(err, ErrBusy) {
		t.Errorf("while another change is under way: %v", err)
	}
	c.unlock()
	if err := c.lock(t.Context()); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// A member answers when its etcd does, even if that refuses us; a port behind
// which nobody speaks TLS is no answer.
func TestAnswers(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // as a process that is frozen
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := Connect([]string{server.URL}, Credentials{
		Roots:       func() *x509.CertPool { return trusted },
		Certificate: func(context.Context) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for url, want := range map[string]bool{
		server.URL: true, "https://" + silent.Addr().String(): false, "https://127.0.0.1:1": false, "::nonsense": false,
	} {
		if got := c.answers(t.Context(), Member{PeerURLs: []string{url}}); got != want {
			t.Errorf("%s answers: %v, want %v", url, got, want)
		}
	}
}
