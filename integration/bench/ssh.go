package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshClient asks as the runbook does: the command is the name, the request
// comes on stdin.
type sshClient struct{ *ssh.Client }

// dialSSH opens connections to an SSH server.
func dialSSH(address string, config *ssh.ClientConfig) dialer {
	return func(kex exchange) (client, error) {
		own := *config
		own.KeyExchanges = []string{map[exchange]string{
			curve25519: ssh.KeyExchangeCurve25519,
			mlkem:      ssh.KeyExchangeMLKEM768X25519,
		}[kex]}
		c, err := ssh.Dial("tcp", address, &own)
		if err != nil {
			return nil, err
		}
		return sshClient{c}, nil
	}
}

func (c sshClient) Certificate(_ context.Context, r *request) ([]byte, error) {
	session, err := c.NewSession()
	if err != nil {
		return nil, err
	}
	defer session.Close() //nolint:errcheck // the status says it all
	var stderr bytes.Buffer
	session.Stdin, session.Stderr = strings.NewReader(r.text), &stderr
	answer, err := session.Output(r.name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, &stderr)
	}
	return answer, nil
}
