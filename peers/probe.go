package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// Admits says whether a port of etcd, host:port, lets the owner of credentials in. A
// refusal is an alert of TLS; anything else that goes wrong is an error.
func Admits(ctx context.Context, host string, credentials Credentials) (bool, error) {
	var err error
	for range probeTries {
		if err = Ask(ctx, "https", host, credentials.TLS()); err == nil {
			return true, nil
		}
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
			return false, nil
		}
	}
	return false, withoutPorts(err)
}
