// Package problems takes apart errors that list what is wrong, for people.
package problems

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// List gives the problems that an error lists, one after the other, each with what was
// said before the whole list; without a list it is the error itself, and nothing for nil.
func List(err error) []error {
	if err == nil {
		return nil
	}
	list, ok := errors.AsType[*multierror.Error](err)
	if !ok {
		return []error{err}
	}
	before, _ := strings.CutSuffix(err.Error(), list.Error())
	var all []error
	for _, e := range list.WrappedErrors() {
		for _, problem := range List(e) {
			if before != "" {
				problem = fmt.Errorf("%s%w", before, problem)
			}
			all = append(all, problem)
		}
	}
	return all
}
