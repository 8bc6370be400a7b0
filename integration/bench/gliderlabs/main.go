// Command gliderlabs is gliderlabs/ssh with its defaults: what it adds to bare.
// Like bare it must not be used for anything else.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/gliderlabs/ssh"

	"github.com/signerd/signerd/integration/bench/sign"
)

func main() {
	listen := flag.String("listen", "", "address")
	hostKey := flag.String("host-key", "", "private key file")
	clientKey := flag.String("client-key", "", "public key file of who may log in")
	caCert, caKey := flag.String("ca-cert", "", "PEM"), flag.String("ca-key", "", "PEM")
	flag.Parse()
	log.Fatal(run(*listen, *hostKey, *clientKey, *caCert, *caKey))
}

func run(listen, hostKey, clientKeyPath, caCert, caKey string) error {
	ca, err := sign.Load(caCert, caKey)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(clientKeyPath)
	if err != nil {
		return err
	}
	clientKey, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return err
	}
	return ssh.ListenAndServe(listen, func(s ssh.Session) {
		certificate, err := ca.Certificate(s.RawCommand(), s)
		if err != nil {
			_ = s.Exit(1)
			return
		}
		_, _ = s.Write(certificate)
		_ = s.Exit(0)
	}, ssh.HostKeyFile(hostKey), ssh.PublicKeyAuth(func(_ ssh.Context, key ssh.PublicKey) bool {
		return ssh.KeysEqual(key, clientKey)
	}))
}
