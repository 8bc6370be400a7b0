package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
)

// endpointsFile has where etcd's members were last: a signer that comes back after its
// own member is gone has to find the others, and whether another one signs by now.
func endpointsFile(c *config.Config) string { return filepath.Join(c.Authority, "endpoints.json") }

// known is what is in it.
type known struct {
	Version int      `json:"version"`
	URLs    []string `json:"urls"` // of clients
}

const knownVersion = 1

// endpoints gives the client URLs by which etcd is asked: those of the configuration, and
// those that were known last.
func endpoints(c *config.Config) ([]string, error) {
	var last known
	if err := durable.LoadState(endpointsFile(c), knownVersion, &last); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading where etcd was last: %w: remove the file, and the configuration counts alone", err)
	}
	all := slices.Clone(c.Etcd)
	for _, url := range last.URLs {
		if !slices.Contains(all, url) {
			all = append(all, url)
		}
	}
	return all, nil
}

// saveEndpoints keeps the client URLs for the next start.
func saveEndpoints(c *config.Config, urls []string) error {
	return durable.SaveState(endpointsFile(c), known{knownVersion, urls}, 0o600)
}
