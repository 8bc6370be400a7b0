// Package config reads signerd.yaml: few keys, strictly. A key that is unknown or
// twice there is an error, and one that is missing, unless it has a default; nothing is
// looked for elsewhere.
// doc/signerd.yaml.5.md is the format's page.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"go.yaml.in/yaml/v4"

	"github.com/signerd/signerd/internal/wire"
)

// Config is a configuration that passed all checks which need no other file.
// Paths are absolute.
type Config struct {
	Cluster        string
	Listen         string
	HostKey        string
	AuthorizedKeys string
	Authority      string
	Ledger         string
	Etcd           []string // client URLs
	Clients        []wire.Glob
	Identity       string // empty: the default
	Trust          []string
	Metrics        string // loopback host:port; empty: none
	SSHProfile     string
	Retention      time.Duration
	Limits         Limits
}

// Limits are the limits section.
type Limits struct {
	PerNamePerHour int `yaml:"per_name_per_hour"` // certificates; 0: no limit
	Front          `yaml:",inline"`
}

// Front bounds what clients can make the SSH server do. It converts to
// sshfront.Limits, whose fields say what each means.
type Front struct {
	LoginGrace     time.Duration `yaml:"login_grace"`
	ConnectionLife time.Duration `yaml:"connection_life"`
	Idle           time.Duration `yaml:"idle"`
	Unused         time.Duration `yaml:"unused"`
	Exec           time.Duration `yaml:"exec"`
	Command        time.Duration `yaml:"command"`
	Linger         time.Duration `yaml:"linger"`

	Connections           int `yaml:"connections"`
	Unauthenticated       int `yaml:"unauthenticated"`
	PerSource             int `yaml:"per_source"`
	PerSourceUnauth       int `yaml:"per_source_unauthenticated"`
	PerSourcePerSecond    int `yaml:"per_source_per_second"`
	Sessions              int `yaml:"sessions"`
	SessionsPerConnection int `yaml:"sessions_per_connection"`
	RequestsPerSession    int `yaml:"requests_per_session"`

	Exempt       []netip.Prefix `yaml:"exempt"`
	HealthChecks []netip.Prefix `yaml:"health_checks"`
}

// DefaultLimits are in force where nothing else is configured.
func DefaultLimits() Limits {
	return Limits{
		PerNamePerHour: 60,
		Front: Front{
			LoginGrace:     10 * time.Second,
			ConnectionLife: 2 * time.Minute,
			Idle:           30 * time.Second,
			Unused:         20 * time.Second,
			Exec:           5 * time.Second,
			Command:        20 * time.Second,
			Linger:         time.Second,

			Connections:           128,
			Unauthenticated:       64,
			PerSource:             16,
			PerSourceUnauth:       8,
			PerSourcePerSecond:    10,
			Sessions:              4,
			SessionsPerConnection: 64,
			RequestsPerSession:    32,
		},
	}
}

// Defaults of what may be left out.
const (
	DefaultPath       = "/etc/signerd/signerd.yaml"
	defaultClients    = "kubemaster-*"
	defaultSSHProfile = "compatible"
	defaultRetention  = "400d"
)

// minRetention keeps a member's last line longer than its certificate: the
// line is how an expired member comes back.
const minRetention = 60 * 24 * time.Hour

// file is signerd.yaml as it is written.
type file struct {
	Cluster        string   `yaml:"cluster"`
	Listen         string   `yaml:"listen"`
	HostKey        string   `yaml:"host_key"`
	AuthorizedKeys string   `yaml:"authorized_keys"`
	Authority      string   `yaml:"authority"`
	Ledger         string   `yaml:"ledger"`
	Etcd           []string `yaml:"etcd"`
	Clients        []string `yaml:"clients"`
	Identity       string   `yaml:"identity"`
	Trust          []string `yaml:"trust"`
	Metrics        string   `yaml:"metrics"`
	SSHProfile     string   `yaml:"ssh_profile"`
	Retention      string   `yaml:"retention"`
	Limits         Limits   `yaml:"limits"`
}

// Load reads the configuration at path. Relative paths in it are taken from the
// directory that it is in. The error lists everything that is wrong.
func Load(path string) (*Config, error) {
	data, err := read(path, "signerd.yaml(5)")
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// read reads a file that a page tells how to write.
func read(path, page string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the configuration: %w: first-boot writes it; by hand, %s has one to begin with", err, page)
	case err != nil:
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return data, nil
}

// Parse reads a configuration's content; path stands for it in errors.
func Parse(path string, data []byte) (*Config, error) {
	f := file{
		Clients:    []string{defaultClients},
		SSHProfile: defaultSSHProfile,
		Retention:  defaultRetention,
		Limits:     DefaultLimits(),
	}
	r, err := decode(path, data, &f)
	if err != nil {
		return nil, err
	}
	c := r.read(f)
	if err := r.verdict(path); err != nil {
		return nil, err
	}
	return c, nil
}

// decode reads YAML strictly, and gives a reader for what is written there.
func decode(path string, data []byte, into any) (*reader, error) {
	var document yaml.Node
	if err := yaml.Load(data, &document); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", located(path, err))
	}
	if err := document.Load(into, yaml.WithKnownFields()); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", located(path, err))
	}
	if line := emptyKey(&document); line > 0 {
		return nil, fmt.Errorf("reading the configuration: %s:%d: there is a colon without a key before it", path, line)
	}
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return &reader{base: base}, nil
}

// emptyKey gives the line of a key that is nothing, which the library lets pass as known;
// 0: there is none.
func emptyKey(n *yaml.Node) int {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.ShortTag() == "!!null" {
			return child.Line
		}
		if line := emptyKey(child); line > 0 {
			return line
		}
	}
	return 0
}

// located puts file and line before each of YAML's complaints.
func located(path string, err error) error {
	list, ok := errors.AsType[*yaml.LoadErrors](err)
	if !ok {
		return fmt.Errorf("%s: %w", path, err)
	}
	var problems *multierror.Error
	for _, e := range list.Errors {
		problems = multierror.Append(problems, fmt.Errorf("%s:%d: %v", path, e.Mark.Line, e.Message))
	}
	return problems.ErrorOrNil()
}

// reader turns what is written into what is meant, and collects what is wrong.
type reader struct {
	base     string
	problems *multierror.Error
}

func (r *reader) problem(format string, args ...any) {
	r.problems = multierror.Append(r.problems, fmt.Errorf(format, args...))
}

// verdict gives the problems, each with the path of the file that it is in.
func (r *reader) verdict(path string) error {
	var all *multierror.Error
	for _, err := range r.problems.WrappedErrors() {
		all = multierror.Append(all, fmt.Errorf("reading the configuration: %s: %w", path, err))
	}
	return all.ErrorOrNil()
}

func (r *reader) read(f file) *Config {
	c := &Config{
		Listen:         f.Listen,
		HostKey:        r.path("host_key", f.HostKey),
		AuthorizedKeys: r.path("authorized_keys", f.AuthorizedKeys),
		Authority:      r.path("authority", f.Authority),
		Ledger:         r.path("ledger", f.Ledger),
		Identity:       f.Identity,
		Metrics:        f.Metrics,
		SSHProfile:     f.SSHProfile,
		Limits:         f.Limits,
	}
	_, port, err := net.SplitHostPort(f.Listen)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		r.problem("listen: %q is not of the form host:port or :port, with a number", f.Listen)
	}
	if c.Cluster, err = wire.ParseClusterID(f.Cluster); err != nil {
		r.problem("cluster: %w", err)
	}
	if f.SSHProfile != "compatible" && f.SSHProfile != "strict" {
		r.problem("ssh_profile: %q is neither compatible nor strict", f.SSHProfile)
	}
	if len(f.Clients) == 0 {
		r.problem("clients: no pattern; nobody could ask for a certificate")
	}
	for _, endpoint := range f.Etcd {
		r.endpoint(endpoint)
	}
	if c.Etcd = f.Etcd; len(f.Etcd) == 0 {
		r.problem("etcd: the client URL of a member is missing")
	}
	for _, pattern := range f.Clients {
		glob, err := wire.ParseGlob(pattern)
		if err != nil {
			r.problem("clients: %w", err)
		}
		c.Clients = append(c.Clients, glob)
	}
	for _, path := range f.Trust {
		c.Trust = append(c.Trust, r.path("trust", path))
	}
	if f.Metrics != "" {
		r.loopback("metrics", f.Metrics)
	}
	if c.Retention, err = parseDays(f.Retention); err != nil || c.Retention < minRetention {
		r.problem("retention: %q is not a number of days like 400d, of at least %s", f.Retention, formatDays(minRetention))
	}
	r.limits(c.Limits)
	return c
}

func (r *reader) path(key, value string) string {
	if value == "" {
		r.problem("%s: the path is missing", key)
		return ""
	}
	if filepath.IsAbs(value) {
		return filepath.Clean(value)
	}
	return filepath.Join(r.base, value)
}

func (r *reader) endpoint(endpoint string) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		r.problem("etcd: %q is not of the form https://host:port", endpoint)
	}
}

// loopback keeps what has no login of its own on this machine.
func (r *reader) loopback(key, address string) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().IsLoopback() {
		r.problem("%s: %q is not a loopback address with a port, as 127.0.0.1:9289", key, address)
	}
}

// maxCommand is well below the time in which a certificate can become void (signer's
// ledger).
const maxCommand = 5 * time.Minute

func (r *reader) limits(l Limits) {
	if l.PerNamePerHour < 0 {
		r.problem("limits: per_name_per_hour is negative")
	}
	front := reflect.ValueOf(l.Front)
	for i := range front.NumField() {
		if field := front.Field(i); field.CanInt() && field.Int() <= 0 {
			r.problem("limits: %s must be more than 0", front.Type().Field(i).Tag.Get("yaml"))
		}
	}
	if l.Command > maxCommand {
		r.problem("limits: command is %s, and at most %s: the ledger knows for so long that a certificate did not arrive", l.Command, maxCommand)
	}
	for _, network := range slices.Concat(l.Exempt, l.HealthChecks) {
		if network != network.Masked() {
			r.problem("limits: %s has bits behind the mask; the network is %s", network, network.Masked())
		}
	}
}

// parseDays reads a number of days, "400d".
func parseDays(s string) (time.Duration, error) {
	number, ok := strings.CutSuffix(s, "d")
	days, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is not a number of days", s)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

func formatDays(d time.Duration) string {
	return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
}
