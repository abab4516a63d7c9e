package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The hang itself cannot be had on demand: the console has what a kernel said
// that hung.
func TestWatchBoot(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		stuck         bool
	}{
		"hangs":            {"", "[   22.349453] rcu: INFO: rcu_preempt self-detected stall on CPU\r\n[   48.536747] watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [swapper/0:1]\r\n", true},
		"is only slow":     {"", "[   48.536747] watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [kubelet:789]\r\n", false},
		"hung last time":   {"[   48.536747] watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [swapper/0:1]\r\n", "", false},
		"has said nothing": {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			console, err := unnamed(unix.O_APPEND)
			if err != nil {
				t.Fatal(err)
			}
			defer console.Close()
			if _, err := console.WriteString(c.before + c.after); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer stop()
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			vm := &VM{console: console}
			vm.watchBoot(ctx, int64(len(c.before)), cancel)
			if got := errors.Is(context.Cause(ctx), errStuck); got != c.stuck {
				t.Errorf("%v, want %v: %v", got, c.stuck, context.Cause(ctx))
			}
		})
	}
}
