package signer

import (
	"maps"
	"slices"
)

// nameIndex finds the names that something is known of: a key, or who asked. One key may
// have asked for many thousands.
type nameIndex[K comparable] map[K]map[string]struct{}

// names gives those of a key, sorted.
func (x nameIndex[K]) names(key K) []string { return slices.Sorted(maps.Keys(x[key])) }

// move takes a name from one key to another; the zero key is nobody's.
func (x nameIndex[K]) move(name string, before, after K) {
	var nobody K
	if before == after {
		return
	}
	if before != nobody {
		if delete(x[before], name); len(x[before]) == 0 {
			delete(x, before)
		}
	}
	if after == nobody {
		return
	}
	if x[after] == nil {
		x[after] = map[string]struct{}{}
	}
	x[after][name] = struct{}{}
}
