// Package table writes text in columns, for people.
package table

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Writer writes rows. What goes wrong sticks to it, and comes with Flush.
type Writer struct{ out *tabwriter.Writer }

// New makes a Writer with a first row, if that is not empty.
func New(out io.Writer, head ...string) *Writer {
	w := &Writer{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		w.Row(head...)
	}
	return w
}

// Row writes a row.
func (w *Writer) Row(cells ...string) { _, _ = fmt.Fprintln(w.out, strings.Join(cells, "\t")) }

// Flush ends the table.
func (w *Writer) Flush() error { return w.out.Flush() }
