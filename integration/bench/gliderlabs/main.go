// Command gliderlabs is gliderlabs/ssh with its defaults: what it adds to bare.
// Like bare it must not be used for anything else.
package main

import (
	"log"

	"github.com/gliderlabs/ssh"

	"github.com/signerd/signerd/integration/bench/sign"
)

func main() { log.Fatal(run()) }

func run() error {
	setup, err := sign.ReadFlags()
	if err != nil {
		return err
	}
	return ssh.ListenAndServe(setup.Listen, func(s ssh.Session) {
		certificate, err := setup.CA.Certificate(s.RawCommand(), s)
		if err != nil {
			_ = s.Exit(1)
			return
		}
		_, _ = s.Write(certificate)
		_ = s.Exit(0)
	}, ssh.HostKeyFile(setup.HostKey), ssh.PublicKeyAuth(func(_ ssh.Context, key ssh.PublicKey) bool {
		return ssh.KeysEqual(key, setup.ClientKey)
	}))
}
