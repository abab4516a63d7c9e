package output

import (
	"io"
	"strings"
)

// Align says on which side of its column a text stands.
type Align int

const (
	Left Align = iota
	Right
)

// Column is one column of a Table. Heading and cells are aligned each in
// their own way.
type Column struct {
	Heading string
	Head    Align
	Cells   Align
}

// Table prints rows under headings, two spaces between the columns. Every
// cell is filled up to the width of its column, the last one too: lines may
// end in spaces. Widths count bytes.
type Table struct {
	cols   []Column
	widths []int
	rows   [][]string
}

// NewTable makes an empty table.
func NewTable(cols ...Column) *Table {
	t := &Table{cols: cols}
	for _, c := range cols {
		t.widths = append(t.widths, len(c.Heading))
	}
	return t
}

// Row adds a row; it needs a cell for every column.
func (t *Table) Row(cells ...string) {
	for i, c := range cells {
		t.widths[i] = max(t.widths[i], len(c))
	}
	t.rows = append(t.rows, cells)
}

// Len is the number of rows so far.
func (t *Table) Len() int { return len(t.rows) }

// Flush writes the table, headings first.
func (t *Table) Flush(w io.Writer) error {
	var b strings.Builder
	for i, c := range t.cols {
		t.cell(&b, i, c.Heading, c.Head)
	}
	for _, row := range t.rows {
		for i, text := range row {
			t.cell(&b, i, text, t.cols[i].Cells)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) cell(b *strings.Builder, i int, text string, align Align) {
	if i > 0 {
		b.WriteString("  ")
	}
	space := strings.Repeat(" ", t.widths[i]-len(text))
	if align == Right {
		b.WriteString(space + text)
	} else {
		b.WriteString(text + space)
	}
	if i == len(t.cols)-1 {
		b.WriteByte('\n')
	}
}
