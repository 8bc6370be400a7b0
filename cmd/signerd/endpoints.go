package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
)

// endpointsFile has where etcd's members were last: a signer that comes back after its
// own member is gone has to find the others, and whether another one signs by now.
func endpointsFile(c *config.Config) string { return filepath.Join(c.Authority, "endpoints.json") }

// endpoints gives the client URLs by which etcd is asked: those of the configuration, and
// those that were known last.
func endpoints(c *config.Config) ([]string, error) {
	data, err := os.ReadFile(endpointsFile(c))
	if errors.Is(err, fs.ErrNotExist) {
		return c.Etcd, nil
	}
	var known []string
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	all := slices.Clone(c.Etcd)
	for _, url := range known {
		if !slices.Contains(all, url) {
			all = append(all, url)
		}
	}
	return all, err
}

// saveEndpoints keeps the client URLs for the next start.
func saveEndpoints(c *config.Config, urls []string) error {
	data, err := json.Marshal(urls)
	if err != nil {
		return err
	}
	return durable.Replace(endpointsFile(c), append(data, '\n'), 0o600)
}
