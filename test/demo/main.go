// Command demo shows the project's story (test/story) to a person: what happens
// at each step and how long it took. It ends with 0 when the whole story held.
// `make demo` runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/opt-rbd/opt-rbd/test/story"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := show(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func show(ctx context.Context) (err error) {
	begin := time.Now()
	d := &display{terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	s := &story.Story{Bin: "bin", Say: d.say, Log: d}
	defer s.Close()
	for i, step := range story.Steps {
		fmt.Printf("\n%d/%d  %s\n", i+1, len(story.Steps), step.Title)
		start := time.Now()
		d.begin()
		err := step.Run(s, ctx)
		d.end()
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.Title, err)
		}
		fmt.Printf("      done in %.1f s\n", time.Since(start).Seconds())
	}
	fmt.Printf("\nThe whole story in %s: see README.md for the commands that put it on a node of yours.\n", time.Since(begin).Round(time.Second))
	return nil
}

// display prints lines to stdout and, on a terminal, a spinner on stderr below
// them while a step runs.
type display struct {
	terminal bool
	bar      *progressbar.ProgressBar
}

func (d *display) begin() {
	if d.terminal {
		d.bar = progressbar.NewOptions(-1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSpinnerType(14),
			progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription("     "))
	}
}

func (d *display) end() {
	if d.bar != nil {
		_ = d.bar.Finish() // it only clears the line
		d.bar = nil
	}
}

func (d *display) say(format string, a ...any) {
	if d.bar != nil {
		_ = d.bar.Clear() // drawn again by its own clock
	}
	fmt.Printf("      | "+format+"\n", a...)
}

// Write shows what the lab reports while it builds.
func (d *display) Write(line []byte) (int, error) {
	d.say("%s", string(line[:len(line)-min(1, len(line))]))
	return len(line), nil
}
