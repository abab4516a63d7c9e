package cli

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// onInterrupt has a line ready for who ends the command half-way by a signal:
// in what state that leaves things. The signal then does what it does. The
// function that it gives ends that.
func (c *call) onInterrupt(line string) (stop func()) {
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			fmt.Fprintf(c.stderr, "\nrbd: interrupted: %s\n", line)
			signal.Reset(s)
			_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
		case <-done:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
