package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
)

// since marks options and commands that a Ceph release brought. They are only
// there where librbd is of that release: see ofRelease.
func since[T args.Option | *command](release int, list ...T) []T {
	for i := range list {
		switch what := any(&list[i]).(type) {
		case *args.Option:
			what.Since = release
		case **command:
			(*what).Since = release
		}
	}
	return list
}

// changes are what a Ceph release has made of commands that were there before,
// in the order of releases.
var changes = []struct {
	release int
	command string
	change  func(*args.Command)
}{
	{18, "bench", option("io-size", "IO size (in B/K/M/G) (< 4G) [default: 4K]")},
	{18, "bench-write", option("io-size", "IO size (in B/K/M/G) (< 4G) [default: 4K]")},
	{18, "deep copy", short("Deep copy (including snapshots) src image to dest.")},
	{18, "device detach", func(c *args.Command) {
		c.Operands[0].Help = "image, snapshot, or device specification\n[<pool-name>/[<namespace>/]]<image-name>[@<snap-name>] or <device-path>"
	}},
	{18, "group image add", without("pool")},
	{18, "group image remove", without("pool")},
	{18, "group rename", short("Rename a group within its pool or namespace.")},
	{18, "mirror pool demote", short("Demote all primary images in a pool or namespace.")},
	{18, "mirror pool disable", short("Disable RBD mirroring in a pool or namespace.")},
	{18, "mirror pool enable", short("Enable RBD mirroring in a pool or namespace.")},
	{18, "mirror pool info", short("Show mirroring configuration for a pool or namespace.")},
	{18, "mirror pool promote", short("Promote all non-primary images in a pool or namespace.")},
	{18, "mirror pool status", short("Show status for all mirrored images in a pool or namespace.")},
	{18, "rename", short("Rename an image within its pool or namespace.")},
	{20, "import-diff", short("Apply an incremental diff to image HEAD, then create a snapshot.")},
	{20, "mirror pool enable", func(c *args.Command) { c.Operands[1].Help = "mirror mode [image, pool or init-only]" }},
}

func short(text string) func(*args.Command) {
	return func(c *args.Command) { c.Short = text }
}

func option(name, help string) func(*args.Command) {
	return func(c *args.Command) {
		i := slices.IndexFunc(c.Options, func(o args.Option) bool { return o.Name == name })
		c.Options[i].Help = help
	}
}

func without(name string) func(*args.Command) {
	return func(c *args.Command) {
		c.Options = slices.DeleteFunc(c.Options, func(o args.Option) bool { return o.Name == name })
	}
}

// ofRelease gives the commands that there are with librbd of a Ceph release, as
// they are there.
func ofRelease(release int, all []*command) (some []*command) {
	some = make([]*command, 0, len(all))
	newer := func(o args.Option) bool { return o.Since > release }
	for _, c := range all {
		if c.Since > release {
			continue
		}
		if slices.ContainsFunc(c.Options, newer) { // of few; this is on the way of each call
			c = c.copy()
			c.Options = slices.DeleteFunc(c.Options, newer)
		}
		some = append(some, c)
	}
	for _, n := range changes {
		if n.release > release {
			break
		}
		i := slices.IndexFunc(some, func(c *command) bool { return strings.Join(c.Path, " ") == n.command })
		some[i] = some[i].copy()
		n.change(&some[i].Command)
	}
	return some
}

// copy is for changes of options and operands.
func (c *command) copy() *command {
	other := *c
	other.Operands, other.Options = slices.Clone(c.Operands), slices.Clone(c.Options)
	return &other
}

// sinceWithText puts what an error's number means at the end of its line, as a
// Ceph release began to do there.
func sinceWithText(release int, err error) error {
	var own *errno.Error
	if librbd.Release < release || !errors.As(err, &own) {
		return err
	}
	return errno.Wrap(own.Err, own.Line)
}
