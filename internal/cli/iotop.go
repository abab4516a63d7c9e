package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// Control sequences that every terminal of today knows (ECMA-48, xterm).
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // without a cursor
	oldScreen   = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
	reversed    = "\x1b[7m"
	bold        = "\x1b[1m"
	plain       = "\x1b[0m"
)

// iotop shows on the whole terminal which images are busiest, until q. < and > choose by what.
func iotop(c *call) (err error) {
	pool, err := c.perfPool()
	if err != nil {
		return err
	}
	if name := os.Getenv("TERM"); name == "" {
		return &errno.Error{Code: syscall.EPERM, Bare: true, Line: "Error opening terminal: unknown."}
	}
	top := &top{c: c, asked: pool}
	if top.stats, err = c.perfStats(pool, perfMetrics[0]); err != nil {
		return err
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, term.Restore(fd, state)) }()
	}
	fmt.Fprint(c.stdout, otherScreen)
	defer func() {
		fmt.Fprint(c.stdout, oldScreen)
		c.stdout.Flush()
	}()
	stopped := &errno.Error{Code: syscall.EPERM} // with nothing to say
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGWINCH)
	defer signal.Stop(signals)
	keys := make(chan string)
	go readKeys(keys)
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for asked := time.Now(); ; {
		if err := top.draw(); err != nil {
			return err
		}
		select {
		case key, more := <-keys:
			switch {
			case !more:
				keys = nil // it goes on without
			case key == "q":
				return nil
			case key == "\x03": // in raw mode Ctrl-C is a key
				return stopped
			case key == "<", key == "\x1b[D":
				top.sortBy = max(top.sortBy-1, 0)
			case key == ">", key == "\x1b[C":
				top.sortBy = min(top.sortBy+1, len(perfMetrics)-1)
			default:
				continue
			}
		case s := <-signals:
			if s != syscall.SIGWINCH {
				return stopped
			}
			continue
		case <-ticks.C:
			// Until there are numbers they may come at any time.
			if len(top.stats) > 0 && time.Since(asked) < perfPeriod {
				continue
			}
		}
		if top.stats, err = c.perfStats(pool, perfMetrics[top.sortBy]); err != nil {
			return err
		}
		asked = time.Now()
	}
}

// readKeys gives what is typed, a key at a time, and ends with the input.
func readKeys(keys chan<- string) {
	defer close(keys)
	in := bufio.NewReader(os.Stdin)
	for {
		b, err := in.ReadByte()
		if err != nil {
			return
		}
		key := string(b)
		if b == '\x1b' && in.Buffered() >= 2 {
			rest := make([]byte, 2)
			_, _ = in.Read(rest)
			key += string(rest)
		}
		keys <- key
	}
}

// top is what is on the terminal.
type top struct {
	c      *call
	asked  string
	stats  []imageStats
	sortBy int // index in perfMetrics
}

func (t *top) draw() error {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	out := t.c.stdout
	fmt.Fprint(out, home+reversed)
	used := 0
	for i, heading := range []string{"WRITES OPS", "READS OPS", "WRITE BYTES", "READ BYTES", "WRITE LAT", "READ LAT"} {
		if i == t.sortBy {
			heading = ">" + heading
		}
		text := cut(fmt.Sprintf("%12s ", heading), width-used)
		used += len(text)
		if i == t.sortBy {
			text = bold + text + plain + reversed
		}
		fmt.Fprint(out, text)
	}
	fmt.Fprintf(out, "%-*s%s", width-used, cut("IMAGE", width-used), plain)
	if len(t.stats) == 0 {
		fmt.Fprint(out, "\r\n"+clearBelow)
		text := "Waiting for initial stats"
		fmt.Fprintf(out, "\x1b[%d;%dH%s", height/2, max((width-len(text))/2, 1), text)
	}
	for _, i := range t.stats[:min(len(t.stats), max(height-1, 0))] {
		var line strings.Builder
		for _, text := range i.texts() {
			fmt.Fprintf(&line, "%12s ", text)
		}
		line.WriteString(i.name(t.asked))
		fmt.Fprint(out, "\r\n"+cut(line.String(), width)+clearLine)
	}
	if len(t.stats) > 0 {
		fmt.Fprint(out, clearBelow)
	}
	return out.Flush()
}

// cut shortens a line to a width.
func cut(line string, width int) string {
	if r := []rune(line); len(r) > width {
		return string(r[:max(width, 0)])
	}
	return line
}
