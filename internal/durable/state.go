package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrDamaged is wrapped when a state file is not what this program writes.
var ErrDamaged = errors.New("is damaged")

// A state file is one JSON object whose member "version" says which form it has. What
// is to be kept for later is written so.

// LoadState reads the state file at path into a struct that has such a member. That it is
// missing is fs.ErrNotExist; no version, an unknown member, or anything behind the object
// wraps ErrDamaged. Another version is an error too, whatever else is in it.
func LoadState(path string, version int, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var form struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return fmt.Errorf("%s %w: %w", path, ErrDamaged, err)
	}
	switch form.Version {
	case version:
	case 0:
		return fmt.Errorf("%s %w: it has no version", path, ErrDamaged)
	default:
		return fmt.Errorf("%s has the version %d, and this program knows %d: run the release that wrote it", path, form.Version, version)
	}
	if err := DecodeStrict(data, into); err != nil {
		return fmt.Errorf("%s %w: %w", path, ErrDamaged, err)
	}
	return nil
}

// SaveState puts a state in the place of the one at path, as Replace does.
func SaveState(path string, state any, mode fs.FileMode) error {
	data, err := EncodeState(state)
	if err != nil {
		return err
	}
	return Replace(path, data, mode)
}

// EncodeState gives what SaveState writes.
func EncodeState(state any) ([]byte, error) {
	data, err := json.MarshalIndent(state, "", "  ")
	return append(data, '\n'), err
}

// DecodeStrict reads one JSON value that has no unknown members and nothing after it. What
// members are called is judged as encoding/json does, in any case.
func DecodeStrict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the value")
	}
	return nil
}
