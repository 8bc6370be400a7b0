package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/sshclient"
	"github.com/signerd/signerd/internal/unit"
	"github.com/signerd/signerd/internal/wire"
)

// failed takes a join back whose member does not vote yet, and leaves one that
// does: then the next run goes on. It gives the error for the caller.
func (j *join) failed(err error) error {
	if j.journal.done("vote") {
		return err
	}
	// What ended the join must not end its undoing.
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout)
	defer cancel()
	switch undoErr := j.undo(ctx); {
	case undoErr == nil:
		return fmt.Errorf("%w; %w", err, ErrUndone)
	case errors.Is(undoErr, errVotes):
		return fmt.Errorf("%w; %w: run this again to finish; if its etcd cannot start, take it out (ssh signer@... remove %s) and then run this again",
			err, undoErr, j.plan.Name)
	default:
		return fmt.Errorf("%w; it could not be undone: %w: run this again; meanwhile signerd lets the member vote if it is in sync, and takes it out if it cannot be reached for 15 minutes", err, undoErr)
	}
}

// errVotes says that a join cannot be undone any more.
var errVotes = errors.New("the member votes already")

// undo makes this machine and the cluster what they were: the learner is taken
// back first, since nothing can be undone once it votes; then the error wraps
// errVotes. Each part may be done twice.
func (j *join) undo(ctx context.Context) error {
	j.at = Event{Title: "take the join back"}
	began, e := time.Now(), j.at
	e.State = Begun
	j.observe(e)
	err := j.takeBack(ctx)
	e.State, e.Err, e.Took = Done, err, time.Since(began)
	if err != nil {
		e.State = Failed
	}
	j.observe(e)
	return err
}

func (j *join) takeBack(ctx context.Context) error {
	j.journal.Undoing = true
	if err := j.journal.write(); err != nil {
		return err
	}
	if err := j.withdraw(ctx); errors.Is(err, errVotes) {
		j.journal.Undoing = false
		return errors.Join(err, j.journal.write())
	} else if err != nil {
		return err
	}
	if err := j.restore(ctx); err != nil {
		return err
	}
	if err := j.journal.forget(); err != nil {
		return err
	}
	j.journal, j.topology = nil, nil
	return nil
}

// withdraw takes the learner out of the cluster, by the key of its certificate.
// That the signer does not admit the key says that it holds no name. Then no
// certificate was issued, or signerd gave the member up; but somebody may also
// have released the name of a member that votes, so that the cluster is looked at.
func (j *join) withdraw(ctx context.Context) error {
	if !j.journal.done(asked) {
		return nil
	}
	keys, err := own.SSHKeys()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an earlier undoing came as far as restore
	} else if err != nil {
		return err
	}
	return j.eventually(ctx, time.Second, func(ctx context.Context) (bool, error) {
		_, err := j.ask(ctx, keys, wire.Command{Verb: wire.Remove, Name: j.plan.Name}, nil)
		refused, ok := errors.AsType[*wire.Error](err)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, sshclient.ErrLogin):
			return j.regain(ctx)
		case ok && refused.Status == wire.Denied:
			return true, fmt.Errorf("%w: %s", errVotes, refused.Text)
		case ok && refused.Status == wire.Retry, errors.Is(err, sshclient.ErrUnreachable):
			return false, signerTrouble(err)
		}
		return true, signerTrouble(err)
	})
}

// regain asks for the certificate once more if the cluster lists this member, so
// that its key holds the name again and may take it back. It gives true if the
// cluster does not list it.
func (j *join) regain(ctx context.Context) (gone bool, err error) {
	answer, err := j.ask(ctx, nil, wire.Command{Verb: wire.GetTopology}, nil)
	if err != nil {
		return false, signerTrouble(err)
	}
	topology, err := parseTopology(answer)
	if err != nil || !lists(topology, j.plan.Name) {
		return err == nil, err
	}
	request, err := own.Request()
	if err != nil {
		return false, err
	}
	_, err = j.ask(ctx, nil, j.plan.request(), request)
	return false, signerTrouble(err)
}

// restore makes this machine what it was.
func (j *join) restore(ctx context.Context) error {
	if err := stopEtcd(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(j.plan.dataDir()); err != nil { // it was not there before
		return err
	}
	for _, path := range []string{own.Certificate, own.Key, own.Trust, environment} {
		if err := durable.Sweep(path); err != nil {
			return err
		}
		if path == environment && !isOurs(path) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for path, target := range j.journal.Found.Moved {
		if err := os.Rename(target, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if isOurs(etcdServicePath) {
		if err := os.Remove(etcdServicePath); err != nil {
			return err
		}
	}
	for _, dir := range []string{config.PKIDir, filepath.Dir(environment), etcdDir, filepath.Dir(etcdServicePath)} {
		if err := durable.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := unit.Reload(ctx); err != nil {
		return err
	}
	if j.journal.Found.Enabled {
		if err := unit.Enable(ctx, member.EtcdUnit); err != nil {
			return err
		}
	}
	if j.journal.Found.EtcdUp {
		return unit.Start(ctx, member.EtcdUnit)
	}
	return nil
}
