// Command bare is golang.org/x/crypto/ssh with nothing around it: the limit
// that signerd is measured against. It has no limits of its own and must not
// be used for anything else.
package main

import (
	"bytes"
	"errors"
	"log"
	"net"
	"os"

	"golang.org/x/crypto/ssh"

	"github.com/signerd/signerd/integration/bench/sign"
)

func main() { log.Fatal(run()) }

func run() error {
	setup, err := sign.ReadFlags()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(setup.HostKey)
	if err != nil {
		return err
	}
	hostKey, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), setup.ClientKey.Marshal()) {
			return nil, errors.New("another key")
		}
		return nil, nil
	}}
	config.AddHostKey(hostKey)
	listener, err := net.Listen("tcp", setup.Listen)
	if err != nil {
		return err
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(c, config, setup.CA)
	}
}

func serve(c net.Conn, config *ssh.ServerConfig, ca *sign.CA) {
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		_ = c.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go session(channel, requests, ca)
	}
}

func session(channel ssh.Channel, requests <-chan *ssh.Request, ca *sign.CA) {
	for request := range requests {
		var payload struct{ Name string }
		ok := request.Type == "exec" && ssh.Unmarshal(request.Payload, &payload) == nil
		_ = request.Reply(ok, nil)
		if !ok {
			continue
		}
		go func() {
			status := struct{ Status uint32 }{}
			certificate, err := ca.Certificate(payload.Name, channel)
			if err != nil {
				status.Status = 1
			}
			_, _ = channel.Write(certificate)
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
			_ = channel.Close()
		}()
	}
}
