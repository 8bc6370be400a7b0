package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table writes rows of text in columns. Errors stick to it and come with Flush.
type table struct{ *tabwriter.Writer }

func newTable(out io.Writer) table { return table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

func (t table) row(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
