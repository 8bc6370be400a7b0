// Package problems takes apart errors that list what is wrong, for people.
package problems

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// List gives the problems that an error lists (multierror, or errors.Join), one after the
// other, each with what was said around the whole list; without a list it is the error
// itself, and nothing for nil.
func List(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if again := errors.Join(joined.Unwrap()...); again != nil && again.Error() == err.Error() {
			return flatten(joined.Unwrap())
		}
	}
	list, ok := errors.AsType[*multierror.Error](err)
	if !ok {
		return []error{err}
	}
	before, after, ok := strings.Cut(err.Error(), list.Error())
	if !ok {
		return []error{err} // whoever wrapped it says it in other words
	}
	all := flatten(list.WrappedErrors())
	if before+after != "" {
		for i, problem := range all {
			all[i] = fmt.Errorf("%s%w%s", before, problem, after)
		}
	}
	return all
}

func flatten(parts []error) (all []error) {
	for _, part := range parts {
		all = append(all, List(part)...)
	}
	return all
}
