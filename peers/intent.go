package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// joinPrefix is where the intents are in etcd: which member is to join, from
// before it is added until it votes.
const joinPrefix = "/signerd/join/"

// intent is one member on its way in.
type intent struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	PeerURL string    `json:"peer_url"`
	Since   time.Time `json:"since"`
}

const intentVersion = 1

func (c *Cluster) intents(ctx context.Context) ([]intent, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := c.client.Get(bounded, joinPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, c.away(ctx, "reading who is joining", err)
	}
	var intents []intent
	for _, kv := range response.Kvs {
		var i intent
		if json.Unmarshal(kv.Value, &i) != nil || i.Version != intentVersion {
			return nil, fmt.Errorf("%w: etcd's key %s is not an intent of version %d; delete it if no member is joining", ErrAway, kv.Key, intentVersion)
		}
		intents = append(intents, i)
	}
	// Where two intents name one URL the later one counts.
	slices.SortFunc(intents, func(a, b intent) int { return b.Since.Compare(a.Since) })
	return intents, nil
}

func (c *Cluster) putIntent(ctx context.Context, i intent) error {
	value, err := json.Marshal(i)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if _, err := c.client.Put(bounded, joinPrefix+i.Name, string(value)); err != nil {
		return c.away(ctx, "recording that "+i.Name+" joins", err)
	}
	return nil
}

func (c *Cluster) deleteIntent(ctx context.Context, name string) error {
	bounded, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if _, err := c.client.Delete(bounded, joinPrefix+name); err != nil {
		return c.away(ctx, "forgetting that "+name+" joins", err)
	}
	return nil
}

// nameOf gives a member's name, from its intent until it has started.
func nameOf(m Member, intents []intent) string {
	if m.Started() {
		return m.Name
	}
	for _, i := range intents {
		if slices.Contains(m.PeerURLs, i.PeerURL) {
			return i.Name
		}
	}
	return ""
}

func orUnnamed(name string) string {
	if name == "" {
		return "one that has not started"
	}
	return name
}
