package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// httpsClient posts JSON and finds the certificate in the answer.
type httpsClient struct {
	http.Client
	url  string
	body func(*request) (any, error)
	read func([]byte) (string, error)
}

// dialHTTPS opens connections to an HTTPS server: one that each goroutine that
// asks at once has for itself and keeps, as HTTP/1.1 clients do.
func dialHTTPS(url string, config *tls.Config, body func(*request) (any, error), read func([]byte) (string, error)) dialer {
	return func(kex exchange) (client, error) {
		own := config.Clone()
		own.CurvePreferences = []tls.CurveID{map[exchange]tls.CurveID{curve25519: tls.X25519, mlkem: tls.X25519MLKEM768}[kex]}
		transport := &http.Transport{TLSClientConfig: own, MaxIdleConnsPerHost: clients}
		return &httpsClient{http.Client{Transport: transport}, url, body, read}, nil
	}
}

func (c *httpsClient) Certificate(ctx context.Context, r *request) ([]byte, error) {
	body, err := c.body(r)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", "application/json")
	response, err := c.Do(post)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if data, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s", response.Status, data)
	}
	certificate, err := c.read(data)
	return []byte(certificate), err
}

func (c *httpsClient) Close() error {
	c.CloseIdleConnections()
	return nil
}

// stepToken makes the one-time token that step-ca asks for.
func stepToken(key *ecdsa.PrivateKey, keyID, audience string) (func(name string) (string, error), error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", keyID))
	if err != nil {
		return nil, err
	}
	return func(name string) (string, error) {
		now := time.Now()
		return jwt.Signed(signer).Claims(jwt.Claims{
			ID: rand.Text(), Issuer: stepProvisioner, Subject: name, Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-time.Minute)), Expiry: jwt.NewNumericDate(now.Add(5 * time.Minute)),
		}).Claims(map[string]any{"sans": []string{name}}).Serialize()
	}, nil
}
