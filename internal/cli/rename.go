package cli

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var renameCommand = &command{
	Command: args.Command{
		Path:     []string{"rename"},
		Aliases:  [][]string{{"mv"}},
		Operands: []args.Operand{sourceImageSpec, destSpec},
		Options:  slices.Concat(sourceImageOptions, destOptions),
		Short:    "Rename image within pool.",
	},
	run: rename,
}

func rename(c *call) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	d, err := c.dest(spec.Form{Names: spec.New}, spec.Spec{Pool: s.Pool, Namespace: s.Namespace})
	if err != nil {
		return err
	}
	if err := samePlace("mv/rename", "", s, d); err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	return errno.Wrap(rbd.GetImage(pool, s.Image).Rename(d.Image), "rename error")
}

// samePlace refuses a rename into another pool or namespace. comma is what the
// operation's second line has between the two.
func samePlace(operation, comma string, s, d spec.Spec) error {
	across := func(what, from, to string) error {
		return errors.Join(
			errno.Errorf(syscall.EINVAL, "%s across %ss not supported", operation, what),
			&errno.Error{Code: syscall.EINVAL, Bare: true, Line: fmt.Sprintf("source %s: %s%s dest %s: %s", what, from, comma, what, to)},
		)
	}
	switch {
	case s.Pool != d.Pool:
		return across("pool", s.Pool, d.Pool)
	case s.Namespace != d.Namespace:
		return across("namespace", s.Namespace, d.Namespace)
	}
	return nil
}
