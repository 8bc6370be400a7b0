package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
)

// data finds data of an etcd that ran here before. What a distribution's package
// began by itself, and nobody used, may be moved aside; anything else stops us.
func (p *preflight) data(ctx context.Context, state unit.State) found {
	f := found{EtcdUp: state.Up(), Enabled: state.Enabled}
	dirs, err := dataDirs()
	if !p.check(err) {
		return f
	}
	switch {
	case !f.EtcdUp && len(dirs) > 0:
		p.problem("there is data of etcd in %v, and no etcd runs that could say what it is: if it is of no use, move it away; if it is, this machine is no fresh one", dirs)
	case f.EtcdUp && len(dirs) > 1:
		p.problem("there is data of etcd in %v, more than the running one's: move away what is of no use", dirs)
	case f.EtcdUp:
		if err := settled(ctx); err != nil {
			p.problem("etcd runs here and is not one that the distribution began by itself: %w; if it is of no use, stop it and move its data away", err)
			return f
		}
		f.Fresh = dirs
	}
	return f
}

// dataDirs gives the directories below etcd's that hold a member's data.
func dataDirs() ([]string, error) {
	below, err := filepath.Glob(etcdDir + "/*")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, dir := range append([]string{etcdDir}, below...) {
		if _, err := os.Stat(filepath.Join(dir, "member")); err == nil && filepath.Ext(dir) != aside {
			dirs = append(dirs, dir)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, err
		}
	}
	return dirs, nil
}

// settled is unused, after an etcd that was started just now has had some time to
// answer.
func settled(ctx context.Context) (err error) {
	for range 20 {
		if err = unused(ctx); !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return err
}

// unused says why the etcd that runs here is not one that a distribution's
// package started and nobody used: one member, without TLS, on loopback, and
// without a key. It asks by etcd's JSON gateway, as TLS is what it must not have.
func unused(ctx context.Context) error {
	var list struct {
		Members []struct {
			PeerURLs   []string `json:"peerURLs"`
			ClientURLs []string `json:"clientURLs"`
		} `json:"members"`
	}
	if err := ask(ctx, "/v3/cluster/member/list", `{}`, &list); err != nil {
		return err
	}
	if len(list.Members) != 1 {
		return fmt.Errorf("its cluster has %d members", len(list.Members))
	}
	for _, text := range append(list.Members[0].PeerURLs, list.Members[0].ClientURLs...) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" || u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" && u.Hostname() != "::1" {
			return fmt.Errorf("it is reached at %s", text)
		}
	}
	var keys struct {
		Count string `json:"count"`
	}
	// All keys: from \0 to \0 (etcd's API, RangeRequest).
	if err := ask(ctx, "/v3/kv/range", `{"key":"AA==","range_end":"AA==","count_only":true}`, &keys); err != nil {
		return err
	}
	if n, err := strconv.Atoi(keys.Count); keys.Count != "" && (err != nil || n > 0) {
		return fmt.Errorf("it has %s keys", keys.Count)
	}
	return nil
}

func ask(ctx context.Context, path, body string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+member.ClientPort+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("it does not answer without TLS: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // it is only read
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s: %s", response.Status, bytes.TrimSpace(text))
	}
	return json.Unmarshal(text, answer)
}

// aside ends the name of what was moved out of the way.
const aside = ".before-signerd"

// moveAside renames a path and remembers it, durably; where it went before, it
// goes to another name. A path that is not there was moved by an earlier run.
func (b *boot) moveAside(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	target := path + aside
	for i := 2; ; i++ {
		if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		target = fmt.Sprintf("%s.%d%s", path, i, aside)
	}
	moved := maps.Clone(b.journal.Found.Moved)
	if moved == nil {
		moved = map[string]string{}
	}
	if _, before := moved[path]; !before { // what is moved back is what was there first
		moved[path] = target
		b.journal.Found.Moved = moved
		if err := b.journal.write(); err != nil {
			return err
		}
	}
	if err := os.Rename(path, target); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// clearEtcd stops the distribution's etcd, which then does not start at boot
// either, and moves its unused data aside.
func (b *boot) clearEtcd(ctx context.Context) (string, error) {
	if err := stopEtcd(ctx); err != nil {
		return "", err
	}
	if isOurs(environment) {
		return "", nil // what there is now is ours
	}
	for _, dir := range b.journal.Found.Fresh {
		if dir == etcdDir { // it is our directory too
			dir = filepath.Join(dir, "member")
		}
		if err := b.moveAside(dir); err != nil {
			return "", err
		}
	}
	switch n := len(b.journal.Found.Moved); {
	case n > 0:
		return fmt.Sprintf("moved aside: %v", b.journal.Found.Moved), nil
	case b.journal.Found.EtcdUp:
		return "stopped it", nil
	}
	return "nothing ran here", nil
}
