package output

import (
	"fmt"
	"io"
	"sync"
)

// Progress is the line that tells how far a long operation is. It belongs on
// standard error, and is written over itself with carriage returns: scripts
// know it so. On a terminal, where no script reads, there is a bar instead
// until the operation ends.
type Progress struct {
	operation string
	w         io.Writer

	mu   sync.Mutex // librbd reports from its own threads
	last int
	bar  *bar // nil where there is no terminal
}

// NewProgress starts a progress line. A nil writer (--no-progress) makes it
// silent. Where size is known, in bytes, a bar shows bytes instead of steps.
func NewProgress(w io.Writer, operation string, size uint64) *Progress {
	return &Progress{operation: operation, w: w, bar: newBar(w, size)}
}

// Update reports that done of total parts are through, or done bytes where the
// total is not known and 0.
func (p *Progress) Update(done, total uint64) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.draw(p.w, p.operation, done, total)
	}
	percent := 0
	if total > 0 {
		percent = int(100 * done / total)
	}
	if percent > p.last {
		p.last = percent
		if p.bar == nil {
			p.print("")
		}
	}
}

// Note writes a line to w that stands beside the operation's own.
func (p *Progress) Note(w io.Writer, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil && (p.last > 0 || p.bar != nil) {
		fmt.Fprintln(p.w)
	}
	fmt.Fprintln(w, text)
}

// Finish ends the line after a success.
func (p *Progress) Finish() {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = 100
	p.print("done.\n")
}

// Fail ends the line after a failure; errors are printed after it.
func (p *Progress) Fail() {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print("failed.\n")
}

func (p *Progress) print(word string) {
	if p.bar != nil {
		p.bar.erase(p.w)
	}
	// The line is a courtesy: nothing is done about a stderr that is gone.
	fmt.Fprintf(p.w, "\r%s: %d%% complete...%s", p.operation, p.last, word)
}
