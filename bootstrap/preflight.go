package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/internal/wire"
)

// preflight collects what stands in the way, all of it before anything changes.
type preflight struct {
	observe  Observer
	problems *multierror.Error
}

func (p *preflight) problem(format string, args ...any) {
	p.problems = multierror.Append(p.problems, fmt.Errorf(format, args...))
}

func (p *preflight) check(err error) bool {
	if err != nil {
		p.problems = multierror.Append(p.problems, err)
	}
	return err == nil
}

func (p *preflight) warn(format string, args ...any) {
	p.observe(Event{State: Warning, Detail: fmt.Sprintf(format, args...)})
}

// misused is a problem with an option.
func (p *preflight) misused(format string, args ...any) {
	p.problem("%w: %w", ErrUsage, fmt.Errorf(format, args...))
}

// verdict gives the list of problems. Its first element is ErrPreflight itself.
func (p *preflight) verdict() error {
	if p.problems.ErrorOrNil() == nil {
		return nil
	}
	return multierror.Append(ErrPreflight, p.problems.Errors...)
}

// machine checks what does not depend on what this machine is to become, and
// gives the state of etcd's unit; nil if systemd does not say.
func (p *preflight) machine(ctx context.Context, now time.Time) *unit.State {
	if os.Geteuid() != 0 {
		p.problem("first-boot must be run as root")
	}
	if !unit.Running() {
		p.problem("systemd does not run this machine, and first-boot starts etcd and the signer through it: use a machine that it does run")
		return nil
	}
	p.clock(now)
	if _, err := user.Lookup("signerd"); err != nil {
		p.problem("the user signerd is missing: install the package signerd")
	}
	if _, err := user.Lookup("etcd"); err != nil {
		p.problem("the user etcd is missing: install the package signerd, which makes it")
	}
	for _, dir := range []string{filepath.Dir(config.PKIDir), config.PKIDir, configDir} {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			p.problem("%s keeps etcd or signerd out of what is below it: chmod o+x %s", dir, dir)
		}
	}
	state, err := unit.Get(ctx, member.EtcdUnit)
	if !p.check(err) {
		return nil
	}
	p.etcdVersion(ctx, state)
	switch state.Load {
	case "loaded", "not-found": // there is one, or there will be
	case "masked":
		p.problem("%s is masked, so that nothing starts it: systemctl unmask etcd", member.EtcdUnit)
	default:
		p.problem("%s cannot be loaded (%s): systemctl status etcd says why", member.EtcdUnit, state.Load)
	}
	return &state
}

// untouched makes sure that this machine is a fresh one, and gives what was found
// on it. Without a state of etcd's unit nothing is said of etcd's data.
func (p *preflight) untouched(ctx context.Context, state *unit.State) (f found) {
	if state != nil {
		f = p.data(ctx, *state)
	}
	for _, path := range []string{own.Certificate, own.Key, own.Trust, caKeyLink, config.DefaultMemberPath} {
		p.absent(path, "no first-boot left it; /usr/share/doc/signerd/runbook.md says how to take over a running cluster, and if nothing uses it move it away")
	}
	return f
}

// clock refuses a time at which this program cannot run yet.
func (p *preflight) clock(now time.Time) {
	self, err := os.Executable()
	if err != nil {
		return
	}
	if info, err := os.Stat(self); err == nil && now.Before(info.ModTime().Add(-24*time.Hour)) {
		p.problem("the clock says %s, and first-boot was made on %s: set the clock (timedatectl), then run this again",
			now.UTC().Format(time.RFC3339), info.ModTime().UTC().Format(time.DateOnly))
	}
}

// ports checks that addresses can be listened on.
func (p *preflight) ports(ctx context.Context, addresses ...string) {
	for _, address := range addresses {
		if err := canListen(ctx, address); err != nil {
			p.problem("%w: something else listens there; ss -ltnp shows what", err)
		}
	}
}

func canListen(ctx context.Context, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return listener.Close()
}

// absent makes sure that a path is not there.
func (p *preflight) absent(path, otherwise string) {
	if _, err := os.Lstat(path); err == nil {
		p.problem("%s is there already: %s", path, otherwise)
	} else if !errors.Is(err, fs.ErrNotExist) {
		p.problem("%w", err)
	}
}

// etcdAddresses are where etcd will listen, host:port.
func (p *plan) etcdAddresses() []string {
	addresses := []string{"127.0.0.1:" + member.ClientPort, "127.0.0.1:" + member.MetricsPort}
	for _, ip := range p.Bind {
		if ip != "127.0.0.1" {
			addresses = append(addresses, net.JoinHostPort(ip, member.ClientPort))
		}
		addresses = append(addresses, net.JoinHostPort(ip, member.PeerPort))
	}
	return addresses
}

// names decides what this machine is called and where it is reached. source is
// where it is seen from; empty: by whatever way leads out.
func (p *preflight) names(ctx context.Context, name string, addresses []string, source string) (string, []wire.Address, []string) {
	if name == "" {
		name = defaultName()
	}
	name, err := wire.ParseMemberName(name)
	if err != nil {
		p.misused("the member's name: %w; give --name etcd-ID", err)
	}
	if len(addresses) == 0 && source == "" {
		if source = wayOut(ctx); source == "" {
			p.problem("this machine has no way out to tell its address by: give --address")
			return name, nil, nil
		}
	}
	if len(addresses) == 0 {
		addresses = []string{source}
	}
	var parsed []wire.Address
	var bind []string
	for i, text := range addresses {
		a, err := wire.ParseAddress(text)
		if err != nil {
			p.misused("--address: %w", err)
			continue
		}
		parsed = append(parsed, a)
		ips, err := localIPs(ctx, a)
		if err != nil {
			p.problem("--address: %w", err)
		}
		if len(ips) == 0 && err == nil && i == 0 && !a.IP().IsValid() {
			p.problem("--address: %s is no address of this machine that others reach: which line of /etc/hosts says otherwise? It has %v", a, interfaceIPs())
		} else if len(ips) == 0 && err == nil && i == 0 {
			p.problem("--address: %s is not an address of this machine, which has %v; the first one must be, since etcd listens there", a, interfaceIPs())
		}
		for _, ip := range ips {
			bind = append(bind, ip.String())
		}
	}
	return name, parsed, bind
}
