package lab

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Dial logs in with the SSH key NAME, from Go: for many clients at once.
func (l *Lab) Dial(name string) (*ssh.Client, error) {
	config, err := l.ClientConfig(name)
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", l.Address(1)+":2222", config)
}

// ClientConfig is how Dial logs in.
func (l *Lab) ClientConfig(name string) (*ssh.ClientConfig, error) {
	data, err := os.ReadFile(l.Path(name))
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	hostPEM, err := os.ReadFile(l.Path("host_key.pub"))
	if err != nil {
		return nil, err
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey(hostPEM)
	if err != nil {
		return nil, err
	}
	return &ssh.ClientConfig{
		User: "signer", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(host), Timeout: 10 * time.Second,
	}, nil
}

// Ask runs one command and gives stdout, the line on stderr and the exit status.
func Ask(client *ssh.Client, command, stdin string) (stdout, stderr string, status int, err error) {
	session, err := client.NewSession()
	if err != nil {
		return "", "", 0, err
	}
	defer session.Close() //nolint:errcheck // the status says it all
	var out, errs bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(stdin), &out, &errs
	err = session.Run(command)
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitStatus(), nil
	}
	return out.String(), errs.String(), 0, err
}
