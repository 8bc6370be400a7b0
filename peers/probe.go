package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// probeTimeout bounds one question to one port.
const probeTimeout = 5 * time.Second

// Ask asks etcd for its version at host, host:port, and gives why it does not answer.
// scheme is https or http; config is nil for http.
func Ask(ctx context.Context, scheme, host string, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/version", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it is only read
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16)); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

// probeTries is how often a port is asked that neither answers nor refuses: a
// connection that is reset may have lost the refusal.
const probeTries = 3

// What a server says of a certificate whose CA it does not know (RFC 8446, 6.2): Go's
// own before 1.22 said only that it is bad.
var refusals = []tls.AlertError{48, 42}

// expired is what it says of one that is not valid by its clock.
const expired tls.AlertError = 45

// Admits says whether a port of etcd, host:port, lets the owner of credentials in. A
// refusal is that its CA is not known there; anything else that goes wrong is an error,
// which wraps ErrClock if the certificate is not valid by that member's clock.
func Admits(ctx context.Context, host string, credentials Credentials) (bool, error) {
	var err error
	for range probeTries {
		if err = Ask(ctx, "https", host, credentials.TLS()); err == nil {
			return true, nil
		}
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
			// The alert's own type is not exported, but its text is.
			is := func(a tls.AlertError) bool { return a.Error() == e.Err.Error() }
			switch {
			case slices.ContainsFunc(refusals, is):
				return false, nil
			case is(expired):
				return false, ErrClock
			}
			break
		}
	}
	return false, withoutPorts(err)
}
