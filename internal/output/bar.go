package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// bar shows a person at a terminal how far an operation is: with the rate so
// far, and the time that is left at that rate.
type bar struct {
	size  uint64 // bytes of the whole, 0 where that is not known
	began time.Time
	drawn time.Time
}

// How often a bar is drawn, how many columns there are where the terminal does
// not say, and how wide the bar itself may be.
const (
	barInterval = 200 * time.Millisecond
	barColumns  = 80
	barWidest   = 40
)

// IsTerminal says whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newBar gives a bar where w is a terminal.
func newBar(w io.Writer, size uint64) *bar {
	if !IsTerminal(w) {
		return nil
	}
	// What is over at once has none.
	now := time.Now()
	return &bar{size: size, began: now, drawn: now}
}

// draw draws that done of total steps are through, unless it has just drawn.
func (b *bar) draw(w io.Writer, operation string, done, total uint64) {
	now := time.Now()
	if now.Sub(b.drawn) < barInterval {
		return
	}
	b.drawn = now
	b.write(w, func(columns int) string { return b.line(columns, operation, done, total, now.Sub(b.began)) })
}

// erase leaves an empty line.
func (b *bar) erase(w io.Writer) {
	b.write(w, func(int) string { return "" })
}

// write writes a line over the one before. Spaces erase on every terminal, and
// none of them is in the last column, after which there may be a new line.
func (b *bar) write(w io.Writer, line func(columns int) string) {
	columns := barColumns
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			columns = n
		}
	}
	fmt.Fprintf(w, "\r%-*s", columns-1, line(columns))
}

// line is what is drawn, in fewer than columns characters. Steps are bytes
// where there is no total.
func (b *bar) line(columns int, operation string, done, total uint64, took time.Duration) string {
	part := min(float64(done)/float64(max(total, 1)), 1)
	bytes := done
	if total > 0 {
		bytes = uint64(float64(b.size) * part)
	}
	head, tail := operation+" ", ""
	if total > 0 {
		tail = fmt.Sprintf(" %d%%", int(100*part))
	}
	if bytes > 0 {
		tail += " " + Size(bytes)
		if total > 0 {
			tail += " of " + Size(b.size)
		}
		tail += ", " + Size(uint64(float64(bytes)/took.Seconds())) + "/s"
	} else if b.size == 0 && total > 0 {
		tail += fmt.Sprintf(", %.1f%%/s", 100*part/took.Seconds())
	}
	if total > 0 && done > 0 {
		left := time.Duration(float64(took) * (1 - part) / part)
		tail += ", " + left.Round(time.Second).String() + " left"
	}
	if width := min(columns-len(head)-len(tail)-3, barWidest); total > 0 && width > 0 {
		full := int(float64(width) * part)
		head += "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "]"
	}
	text := head + tail
	return text[:min(len(text), columns-1)]
}
