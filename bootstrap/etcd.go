package bootstrap

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// etcdService is the unit for an etcd that came without one.
//
//go:embed etcd.service
var etcdService []byte

const etcdServicePath = "/etc/systemd/system/" + member.EtcdUnit

// release is a version of etcd: major, minor, patch.
type release [3]int

func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r[0], r[1], r[2]) }

func (r release) before(o release) bool {
	for i := range r {
		if r[i] != o[i] {
			return r[i] < o[i]
		}
	}
	return false
}

// oldest is the first release of the oldest minor version that etcd's own project
// still mended in 2026. What of it has known holes is warned of.
var oldest = release{3, 5, 0}

// mended are the first releases without GHSA-xg4h-6gfc-h4m8 (reads past a role)
// and GHSA-6vch-q96h-7gc3 (handshakes that exhaust memory).
var mended = []release{{3, 5, 33}, {3, 6, 14}, {3, 7, 1}}

var versionForm = regexp.MustCompile(`(?m)^etcd Version: (\d+)\.(\d+)\.(\d+)`)

// etcdProgram finds etcd: what the unit runs, or what a shell would find.
func etcdProgram(state unit.State) (string, error) {
	// A unit may run it by way of a shell (Fedora's does).
	if state.Known() && filepath.Base(state.Program) == "etcd" {
		if _, err := os.Stat(state.Program); err != nil {
			return "", fmt.Errorf("%s runs %s, which is missing: install etcd", member.EtcdUnit, state.Program)
		}
		return state.Program, nil
	}
	for _, path := range []string{"/usr/local/bin/etcd", "/usr/bin/etcd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("etcd is missing: install it as a package, or put etcd 3.5 or later at /usr/local/bin/etcd")
}

// etcdVersion checks that etcd is there and new enough.
func (p *preflight) etcdVersion(ctx context.Context, state unit.State) {
	program, err := etcdProgram(state)
	if !p.check(err) {
		return
	}
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		p.problem("%s --version: %w", program, err)
		return
	}
	v, err := parseVersion(out)
	if err != nil {
		p.problem("%s: %w", program, err)
		return
	}
	if v.before(oldest) {
		p.problem("%s is etcd %s, and %s or later is needed: upgrade it, or put a newer one at /usr/local/bin/etcd with a unit that runs it", program, v, oldest)
	}
	for _, m := range mended {
		if v[0] == m[0] && v[1] == m[1] && v.before(m) {
			p.warn("etcd %s has known security holes that %s closes", v, m)
		}
	}
}

func parseVersion(out []byte) (release, error) {
	match := versionForm.FindSubmatch(out)
	if match == nil {
		return release{}, fmt.Errorf("etcd --version says nothing that looks like a version: %q", firstLine(out))
	}
	var r release
	for i := range r {
		r[i], _ = strconv.Atoi(string(match[i+1])) // the form has digits only
	}
	return r, nil
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(line)
}

// settings is what etcd is started with: its environment file. topology is its
// --initial-cluster; state is new for the founder, existing for all others.
func (p *plan) settings(topology, state string) []byte {
	clientURLs := make([]string, 0, len(p.Bind)+1)
	var peerURLs []string
	loopback := false
	for _, ip := range p.Bind {
		clientURLs = append(clientURLs, member.ClientURL(ip))
		peerURLs = append(peerURLs, "https://"+net.JoinHostPort(ip, member.PeerPort))
		loopback = loopback || ip == "127.0.0.1"
	}
	if !loopback {
		clientURLs = append(clientURLs, member.LocalEndpoint)
	}
	var b strings.Builder
	b.WriteString(ours + " " + p.Command + ". The certificates are renewed in place.\n")
	for _, setting := range [][2]string{
		{"NAME", p.Name},
		{"DATA_DIR", p.dataDir()},
		{"LISTEN_CLIENT_URLS", strings.Join(clientURLs, ",")},
		{"ADVERTISE_CLIENT_URLS", p.clientURL()},
		{"LISTEN_PEER_URLS", strings.Join(peerURLs, ",")},
		{"INITIAL_ADVERTISE_PEER_URLS", peers.PeerURL(p.address())},
		{"INITIAL_CLUSTER", topology},
		{"INITIAL_CLUSTER_STATE", state},
		{"INITIAL_CLUSTER_TOKEN", p.Cluster},
		{"LISTEN_METRICS_URLS", "http://127.0.0.1:" + member.MetricsPort},
		{"CERT_FILE", own.Certificate},
		{"KEY_FILE", own.Key},
		{"TRUSTED_CA_FILE", own.Trust},
		{"CLIENT_CERT_AUTH", "true"},
		{"PEER_CERT_FILE", own.Certificate},
		{"PEER_KEY_FILE", own.Key},
		{"PEER_TRUSTED_CA_FILE", own.Trust},
		{"PEER_CLIENT_CERT_AUTH", "true"},
		// Without it any client's certificate opens the peer port.
		{"PEER_CERT_ALLOWED_HOSTNAME", signer.PeerName(p.Cluster)},
	} {
		fmt.Fprintf(&b, "ETCD_%s=%s\n", setting[0], setting[1])
	}
	return []byte(b.String())
}

// configureEtcd writes etcd's environment and, where there is none, its unit.
func (b *boot) configureEtcd(ctx context.Context, topology, state string) error {
	settings := b.plan.settings(topology, state)
	if now, err := os.ReadFile(environment); err != nil || !bytes.Equal(now, settings) {
		if err == nil && !bytes.HasPrefix(now, []byte(ours)) {
			if err := b.moveAside(environment); err != nil {
				return err
			}
		}
		if err := makeDir(filepath.Dir(environment)); err != nil {
			return err
		}
		if err := durable.Replace(environment, settings, 0o644); err != nil {
			return err
		}
	}
	owner, err := ownerOf("etcd")
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(etcdDir, 0o700), os.Chown(etcdDir, owner.UID, owner.GID), durable.SyncDir(filepath.Dir(etcdDir))); err != nil {
		return err
	}
	if s, err := unit.Get(ctx, member.EtcdUnit); err != nil {
		return err
	} else if s.Load == "not-found" {
		program, err := etcdProgram(s)
		if err != nil {
			return err
		}
		if err := durable.Replace(etcdServicePath, bytes.ReplaceAll(etcdService, []byte("/usr/local/bin/etcd"), []byte(program)), 0o644); err != nil {
			return err
		}
	}
	return unit.Reload(ctx)
}

// ours begins the files that first-boot may replace and take away.
const ours = "# Written by first-boot"

func isOurs(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && bytes.HasPrefix(text, []byte(ours))
}

// running says whether etcd was started here by an earlier run: it has data, and
// may vote already, so that it must not be stopped.
func (b *boot) running() bool {
	_, err := os.Stat(filepath.Join(b.plan.dataDir(), "member"))
	return err == nil && isOurs(environment)
}

// startEtcd lets etcd start, now and at each boot, and does not wait.
func startEtcd(ctx context.Context) error {
	if err := unit.Enable(ctx, member.EtcdUnit); err != nil {
		return err
	}
	return unit.Start(ctx, member.EtcdUnit)
}

// stopEtcd stops etcd, which then does not start at boot either. One that has no
// unit is stopped.
func stopEtcd(ctx context.Context) error {
	s, err := unit.Get(ctx, member.EtcdUnit)
	if err != nil || !s.Known() {
		return err
	}
	if err := unit.Disable(ctx, member.EtcdUnit); err != nil {
		return err
	}
	return unit.Stop(ctx, member.EtcdUnit)
}

// listMembers lists etcd's members as a majority has them, for awaitEtcd.
func listMembers(ctx context.Context, c *peers.Cluster) error {
	_, err := c.Members(ctx)
	return err
}

// ownerOf gives the owner of files for a user.
func ownerOf(name string) (durable.Owner, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return durable.Owner{}, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return durable.Owner{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return durable.Owner{UID: uid, GID: gid}, err
}

// makeDir makes sure of a directory that everybody may read; one that is there
// stays as it is.
func makeDir(path string) error {
	return errors.Join(os.MkdirAll(path, 0o755), durable.SyncDir(filepath.Dir(path)))
}
