package cli

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// snapChangeCommands are those that change snapshots, or an image by one.
var snapChangeCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"snap", "limit", "clear"},
			Operands: []args.Operand{imageSpec},
			Options:  imageOptions,
			Short:    "Remove snapshot limit.",
		},
		run: func(c *call) error {
			return setSnapLimit(c, "clearing snapshot limit failed", func() (uint64, error) { return math.MaxUint64, nil })
		},
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "limit", "set"},
			Operands: []args.Operand{imageSpec},
			Options: []args.Option{
				poolOption, namespaceOption, imageOption,
				{Name: "limit", Arg: "arg", Help: "maximum allowed snapshot count", Check: isA(unsigned)},
			},
			Short: "Limit the number of snapshots.",
		},
		run: func(c *call) error {
			return setSnapLimit(c, "setting snapshot limit failed", func() (uint64, error) {
				if !c.IsSet("limit") {
					return 0, errno.Errorf(syscall.ERANGE, "must specify --limit <num>")
				}
				return c.number("limit", unsigned), nil
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "protect"},
			Operands: []args.Operand{snapSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, snapOption},
			Short:    "Prevent a snapshot from being deleted.",
		},
		run: func(c *call) error {
			return withSnap(c, c.openToChange, func(image *rbd.Image, snap string) error {
				if protected, err := image.GetSnapshot(snap).IsProtected(); err == nil && protected {
					return errno.Errorf(syscall.EBUSY, "snap is already protected")
				} else if err != nil {
					return errno.Wrap(err, "protecting snap failed")
				}
				return errno.Wrap(image.GetSnapshot(snap).Protect(), "protecting snap failed")
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "purge"},
			Operands: []args.Operand{imageSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, imageIDOption, noProgress},
			Short:    "Delete all unprotected snapshots.",
		},
		run: snapPurge,
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "rename"},
			Operands: []args.Operand{sourceSnapSpec, {Name: "dest-snap-spec", Help: "destination snapshot specification\n(example: [<pool-name>/[<namespace>/]]<image-name>@<snap-name>)"}},
			Options: slices.Concat(
				sourceImageOptions, []args.Option{sourceSnapOption}, destOptions,
				[]args.Option{{Name: "dest-snap", Arg: "arg", Help: "destination snapshot name"}},
			),
			Short: "Rename a snapshot.",
		},
		run: snapRename,
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "rollback"},
			Aliases:  [][]string{{"snap", "revert"}},
			Operands: []args.Operand{snapSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, snapOption, noProgress},
			Short:    "Rollback image to snapshot.",
		},
		run: func(c *call) error {
			return withSnap(c, c.openToChange, func(image *rbd.Image, snap string) error {
				err := c.withProgress("Rolling back to snapshot", sizeOf(image), func(p librbd.Progress) error { return librbd.Rollback(image, snap, p) })
				if err == nil {
					c.changedUnder(image)
				}
				return errno.Wrap(err, "rollback failed")
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "unprotect"},
			Operands: []args.Operand{snapSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, snapOption, imageIDOption},
			Short:    "Allow a snapshot to be deleted.",
		},
		run: func(c *call) error {
			return withSnap(c, c.openFull, func(image *rbd.Image, snap string) error {
				if protected, err := image.GetSnapshot(snap).IsProtected(); err == nil && !protected {
					return errno.Errorf(syscall.EINVAL, "snap is already unprotected")
				} else if err != nil {
					return errno.Wrap(err, "unprotecting snap failed")
				}
				return errno.Wrap(image.GetSnapshot(snap).Unprotect(), "unprotecting snap failed")
			})
		},
	},
}

type imageOpener func(s spec.Spec, id string) (*rados.IOContext, *rbd.Image, error)

// withSnap does something to a snapshot of an image, which may be named by its
// id where the command has an option for that.
func withSnap(c *call, open imageOpener, do func(image *rbd.Image, snap string) error) (err error) {
	s, id, err := c.specOrID(spec.Form{Snap: spec.NeedSnap}, imageTwice)
	if err != nil {
		return err
	}
	snap := s.Snap
	s.Snap = ""
	_, image, err := open(s, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	return do(image, snap)
}

func setSnapLimit(c *call, failed string, limit func() (uint64, error)) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	n, err := limit()
	if err != nil {
		return err
	}
	return c.change(s, func(image *rbd.Image) error { return errno.Wrap(librbd.SetSnapLimit(image, n), failed) })
}

func snapPurge(c *call) (err error) {
	s, id, err := c.specOrID(spec.Form{}, imageTwice)
	if err != nil {
		return err
	}
	_, image, err := c.openFull(s, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	progress := c.progress("Removing all snapshots", 0)
	failed := func(err error) error {
		progress.Fail()
		return errno.Wrap(err, "removing snaps failed")
	}
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == rbd.SnapNamespaceTypeUser })
	if err != nil {
		return failed(err)
	}
	var free, protected []string
	for _, snap := range snaps {
		kept, err := image.GetSnapshot(snap.Name).IsProtected()
		switch {
		case err != nil:
			return failed(err)
		case kept:
			protected = append(protected, snap.Name)
		default:
			free = append(free, snap.Name)
		}
	}
	if len(protected) > 0 {
		verb := "is"
		if len(protected) > 1 {
			verb = "are"
		}
		fmt.Fprintf(c.stdout, "rbd: error removing snapshot(s) '%s', which %s protected - these must be unprotected with `rbd snap unprotect`.\n",
			strings.Join(protected, ","), verb)
	}
	for i, snap := range free {
		if err := image.GetSnapshot(snap).Remove(); err != nil {
			return failed(err)
		}
		progress.Update(uint64(i)+1, uint64(len(snaps)))
	}
	switch {
	case len(protected) > 0:
		progress.Fail()
	case len(free) > 0:
		progress.Finish()
	}
	return nil
}

func snapRename(c *call) error {
	s, err := c.spec(spec.Form{Snap: spec.NeedSnap})
	if err != nil {
		return err
	}
	d, err := c.specBefore(spec.Spec{Pool: s.Pool, Namespace: s.Namespace}, spec.Form{Dest: true, Snap: spec.NeedSnap, Names: spec.NewSnap},
		"dest-pool", "dest-namespace", "dest", "dest-snap")
	if err != nil {
		return err
	}
	switch {
	case s.Pool != d.Pool:
		return errno.Errorf(syscall.EINVAL, "source and destination pool must be the same")
	case s.Namespace != d.Namespace:
		return errno.Errorf(syscall.EINVAL, "source and destination namespace must be the same")
	case s.Image != d.Image:
		return errno.Errorf(syscall.EINVAL, "source and destination image name must be the same")
	}
	snap := s.Snap
	s.Snap = ""
	return c.change(s, func(image *rbd.Image) error {
		return errno.Wrap(image.GetSnapshot(snap).Rename(d.Snap), "renaming snap failed")
	})
}
