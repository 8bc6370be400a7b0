// Command demo is "make run": signerd's main job on an etcd of its own, in
// front of you, with the stock ssh, openssl and etcdctl.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/signerd/signerd/integration/lab"
)

func main() {
	dir := flag.String("dir", "build/run", "the directory to run in; it is made anew")
	once := flag.Bool("once", false, "end after showing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *dir, *once)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// network is where the demonstration listens; one can run at a time.
const network = "127.79.0"

func run(ctx context.Context, dir string, once bool) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	fmt.Println("Building signerd and etcd (the first time takes a minute or two) ...")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	binary := filepath.Join(dir, "signerd")
	if err := lab.BuildSignerd(binary); err != nil {
		return err
	}
	etcd, err := lab.BuildEtcd(lab.EtcdVersions[0])
	if err != nil {
		return err
	}
	l, err := lab.New(dir, network, etcd, binary, "")
	if err != nil {
		return err
	}
	defer l.Close()
	// A short name for the lines below.
	if err := os.Symlink(etcd.Ctl, l.Path("etcdctl")); err != nil {
		return err
	}
	if err := bringUp(l); err != nil {
		return err
	}
	if err := show(ctx, l); err != nil {
		return err
	}
	if once {
		return nil
	}
	fmt.Printf("\nsignerd and etcd stay up until Ctrl-C; their logs are in %s. Paste any line above, or:\n\n"+
		"  cd %s\n  ssh -F ssh_config signer@leader help\n  ssh -F ssh_config signer@leader get-status\n"+
		"  ssh -F ssh_config signer@leader release kubemaster-01\n  ./signerd ledger show --config signerd.yaml\n", dir, dir)
	<-ctx.Done()
	return nil
}

func bringUp(l *lab.Lab) error {
	member, err := l.FoundMember()
	if err != nil {
		return err
	}
	if err := l.StartEtcd(member, ""); err != nil {
		return fmt.Errorf("%w; does another demonstration run? see %s", err, l.Path(member.Name+".log"))
	}
	return l.StartSigner()
}

// show does the runbook's lines, each as one would type it.
func show(ctx context.Context, l *lab.Lab) error {
	etcdctl := fmt.Sprintf("./etcdctl --endpoints=https://%s:2379 --cacert=ca.crt --cert=client.crt --key=client.key", l.Address(11))
	fmt.Printf("\n$ cd %s\n\n$ HOSTNAME=kubemaster-01\n", l.Dir)
	for _, line := range []string{
		"ssh -F ssh_config signer@leader get-peers",
		"ssh -F ssh_config signer@leader get-certificate > ca.crt",
		"openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out client.key",
		"openssl req -new -key client.key -subj /CN=kubemaster-01 -out client.csr",
		`base64 < client.csr | ssh -F ssh_config signer@leader "$HOSTNAME" > client.crt`,
		"openssl x509 -in client.crt -noout -text",
		"openssl verify -x509_strict -purpose sslclient -CAfile ca.crt client.crt",
		etcdctl + " put greeting 'signed by signerd'",
		etcdctl + " get greeting",
		etcdctl + " member list -w table",
	} {
		fmt.Printf("\n$ %s\n", line)
		cmd := exec.CommandContext(ctx, "sh", "-c", line)
		cmd.Dir = l.Dir
		cmd.Env = append(os.Environ(), "HOSTNAME=kubemaster-01")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}
