package problems

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/hashicorp/go-multierror"
)

// hollow wraps a list with nothing in it.
type hollow struct{}

func (hollow) Error() string   { return "hollow" }
func (hollow) Unwrap() []error { return nil }

// Each problem is there once, with what was said of all, and can still be told by what
// it wraps.
func TestList(t *testing.T) {
	a, b, c := errors.New("a"), fmt.Errorf("b: %w", fs.ErrNotExist), errors.New("c")
	inner := multierror.Append(nil, a, b)
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, "[]"},
		{a, "[a]"},
		{inner, "[a b: file does not exist]"},
		{multierror.Append(nil, c, inner), "[c a b: file does not exist]"},
		{fmt.Errorf("reading: %w", inner), "[reading: a reading: b: file does not exist]"},
		{multierror.Append(nil, c, fmt.Errorf("reading: %w", inner)), "[c reading: a reading: b: file does not exist]"},
		{fmt.Errorf("the keys: %w; give others", inner), "[the keys: a; give others the keys: b: file does not exist; give others]"},
		{fmt.Errorf("the keys: %w; give others", multierror.Append(nil, b)), "[the keys: b: file does not exist; give others]"},
		{errors.Join(c, inner), "[c a b: file does not exist]"},
		{errors.Join(inner, b), "[a b: file does not exist b: file does not exist]"},
		{fmt.Errorf("%w: %w", c, inner), "[c: a c: b: file does not exist]"},
		{multierror.Append(nil), "[]"},
		{hollow{}, "[hollow]"},
		{fmt.Errorf("all: %w", multierror.Append(nil, c, fmt.Errorf("reading: %w", inner))), "[all: c all: reading: a all: reading: b: file does not exist]"},
	} {
		got := List(test.err)
		if fmt.Sprint(got) != test.want {
			t.Errorf("%v: %v, want %s", test.err, got, test.want)
		}
		if len(got) > 0 && errors.Is(test.err, fs.ErrNotExist) && !errors.Is(got[len(got)-1], fs.ErrNotExist) {
			t.Errorf("%v: the last one wraps nothing any more", test.err)
		}
	}
}
