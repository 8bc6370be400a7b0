package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-multierror"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/signerd/signerd/internal/authkeys"
	"github.com/signerd/signerd/internal/commands"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/rotation"
	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/version"
	"github.com/signerd/signerd/signer"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve requests until SIGTERM; SIGHUP reads authorized_keys again",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd, config.DefaultPath)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(*path, time.Now())
		if s != nil {
			err = multierror.Append(err, s.checkStart(), s.superseded()).ErrorOrNil()
		}
		if err != nil {
			return exitForState(err)
		}
		return serve(cmd.Context(), s, newLog())
	}
	return cmd
}

// newLog logs to stderr: JSON lines for the journal, words for a terminal.
func newLog() zerolog.Logger {
	var log zerolog.Logger
	if term.IsTerminal(int(os.Stderr.Fd())) {
		log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly})
	} else {
		log = zerolog.New(os.Stderr)
	}
	return log.With().Timestamp().Logger()
}

// gcRoom is how much the heap may grow between two collections, at least. At
// rest it is 2 MB, for which Go would collect at every 40th certificate.
const gcRoom = 3 << 20

// gcPercent gives GOGC for the heap as it is, of which a long past is a part.
func gcPercent() int {
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	return max(100, int(100*gcRoom/max(1, now.HeapAlloc)))
}

// serve runs the daemon until a signal ends it.
func serve(ctx context.Context, s *setup, log zerolog.Logger) error {
	var watch *watch // nil: nobody reads metrics, and nobody pays for them
	if s.config.Metrics != "" {
		watch = newWatch(s.authority)
	}
	signs, err := open(s, watch, log)
	if err != nil {
		return exitForState(err)
	}
	defer logClose(log, "ledger", signs.Close)
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent())
	}
	cluster, err := s.connect(signs)
	if err != nil {
		return exit(exitConfig, err)
	}
	defer logClose(log, "etcd", cluster.Close)
	desk := commands.New(signs, s.config.Clients, cluster, s.trust)
	// Before etcd is told of a signer that was restored, which stops the one before it.
	listener, err := listen(ctx, s.config.Listen)
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // the front has closed it, or never had it
	if err := mayStart(ctx, signs, desk.Rotation()); err != nil {
		return err
	}
	for _, c := range s.trust {
		log.Info().Str("ca", signer.Fingerprint(c)).Stringer("subject", c.Subject).Msg("handed out too, by trust in the configuration; it signs nothing here")
	}
	desk.SetKeys(s.keys)
	if watch != nil {
		watch.ledger = signs.Ledger()
		desk.SetMeter(watch.metrics)
		defer watch.serve(ctx, s.config.Metrics, cluster, log)()
	}
	front, err := newFront(s, desk, watch, sources(signs.Ledger().Expected(time.Now())), log)
	if err != nil {
		return exit(exitConfig, err)
	}
	active := s.authority.Active()
	log.Info().Str("version", version.String()).Str("cluster", s.config.Cluster).
		Stringer("address", listener.Addr()).Str("ca", active.Fingerprint()).Time("ca_not_after", active.Certificate.NotAfter).
		Int("authorized_keys", s.keys.Len()).Uint64("ledger_lines", signs.Ledger().Head().Seq).
		Msg("listening")

	k := keeper{config: s.config, log: log, cluster: cluster, signer: signs, driver: desk.Rotation(), heads: desk.Rotation().Heads(), watch: watch}
	background, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		k.keep(background)
	}()
	defer func() { stop(); <-kept }()
	return runUntilSignal(front, listener, log, func() { reload(log, desk, s.config.AuthorizedKeys) }, s.config.Limits.Command+5*time.Second)
}

// open opens the signer, and tells what the last one left undone.
func open(s *setup, watch *watch, log zerolog.Logger) (*signer.Signer, error) {
	parts := s.parts()
	parts.Options = signer.LedgerOptions{PerNamePerHour: s.config.Limits.PerNamePerHour, Retention: s.config.Retention}
	if watch != nil {
		parts.Options.Commit = watch.metrics.Commit
	}
	signs, left, err := signer.Open(parts, time.Now())
	if left.Cut > 0 {
		log.Warn().Int64("bytes", left.Cut).Msg("cut an unfinished batch off the ledger; nobody was answered from it")
	}
	if left.Undone != "" {
		log.Warn().Str("step", string(left.Undone)).Msg("a step of the rotation was interrupted, and is undone; ask for it again")
	}
	return signs, err
}

// listen opens the port. Connections end by their own limits long before keepalives would
// tell.
func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, exitForListen(err)
	}
	return listener, nil
}

// newFront makes the SSH side. Known are the sources of which somebody was let in before.
func newFront(s *setup, gate sshfront.Gate, watch *watch, known []netip.Addr, log zerolog.Logger) (*sshfront.Server, error) {
	options := sshfront.Options{
		HostKey: s.hostKey,
		Profile: sshfront.Profile(s.config.SSHProfile),
		Limits:  sshfront.Limits(s.config.Limits.Front),
		Gate:    gate,
		Known:   known,
		Log:     log,
	}
	if watch != nil {
		options.Meter = watch.metrics
	}
	return sshfront.New(options)
}

// sources gives the addresses that certificates were asked for from.
func sources(holds []*signer.Hold) []netip.Addr {
	var all []netip.Addr
	for _, h := range holds {
		if source, err := netip.ParseAddr(h.Source()); err == nil {
			all = append(all, source)
		}
	}
	return all
}

// startPatience is how long the start waits for etcd to say who signs. Without it the
// daemon serves, and asks later.
const startPatience = 500 * time.Millisecond

// mayStart says why nothing must be signed here. A signer that etcd does not know yet
// starts, and is stopped until it does.
func mayStart(ctx context.Context, s *signer.Signer, driver *rotation.Driver) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	switch err := driver.Claim(ctx); {
	case errors.Is(err, rotation.ErrUnclaimed):
		s.Stop(err) // until it is claimed
	case rotation.Forbids(err):
		return exit(exitConfig, err)
	case errors.Is(err, rotation.ErrStrange):
		return exit(exitRetry, err) // another look may see more
	}
	return nil
}

// runUntilSignal serves until SIGTERM or SIGINT, then lets commands finish.
func runUntilSignal(front *sshfront.Server, listener net.Listener, log zerolog.Logger, reload func(), grace time.Duration) error {
	// They stay caught to the end: a second SIGTERM must not cut off the first.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	served := make(chan error, 1)
	go func() { served <- front.Serve(listener) }()
	notify(log, daemon.SdNotifyReady)
	for {
		select {
		case err := <-served:
			return errors.Join(err, shutdown(front, grace))
		case received := <-signals:
			if received == syscall.SIGHUP {
				reload()
				continue
			}
			notify(log, daemon.SdNotifyStopping)
			log.Info().Stringer("signal", received).Msg("stopping: commands may finish")
			return errors.Join(shutdown(front, grace), <-served)
		}
	}
}

func shutdown(front *sshfront.Server, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := front.Shutdown(ctx); err != nil {
		return fmt.Errorf("stopping: commands were cut off: %w", err)
	}
	return nil
}

// reload reads authorized_keys again; what does not parse changes nothing.
func reload(log zerolog.Logger, desk *commands.Desk, path string) {
	keys, err := authkeys.Load(path)
	if err != nil {
		log.Error().Err(err).Msg("authorized_keys does not parse: the keys from before stay")
		return
	}
	desk.SetKeys(keys)
	log.Info().Int("authorized_keys", keys.Len()).Msg("authorized_keys was read again")
}

// notify tells systemd (sd_notify(3)); without systemd it does nothing.
func notify(log zerolog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn().Err(err).Msg("cannot tell systemd")
	}
}

func logClose(log zerolog.Logger, what string, closeIt func() error) {
	if err := closeIt(); err != nil {
		log.Error().Err(err).Str("what", what).Msg("closing")
	}
}
