package cli

import (
	"errors"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var removeCommand = &command{
	Command: args.Command{
		Path:     []string{"remove"},
		Aliases:  [][]string{{"rm"}},
		Operands: []args.Operand{imageSpec},
		Options:  []args.Option{poolOption, namespaceOption, imageOption, noProgress},
		Short:    "Delete an image.",
	},
	run: func(c *call) error {
		s, err := c.spec(spec.Form{})
		if err != nil {
			return err
		}
		pool, err := c.fullPool(s)
		if err != nil {
			return err
		}
		err = c.withProgress("Removing image", 0, func(p librbd.Progress) error { return librbd.Remove(pool, s.Image, p) })
		return removeError(c, pool, s.Image, err)
	},
}

// fullPool opens a pool to remove something in it, which has to work in one
// that is full.
func (c *call) fullPool(s spec.Spec) (*rados.IOContext, error) {
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err == nil {
		err = pool.SetPoolFullTry()
	}
	return pool, err
}

const stillWatched = "This means the image is still open or the client using it crashed. " +
	"Try again after closing/unmapping it or waiting 30s for the crashed client to timeout."

// removeError says why an image is still there.
func removeError(c *call, pool *rados.IOContext, name string, err error) error {
	code := errno.Code(err)
	switch {
	case err == nil:
		return nil
	case code == syscall.ENOTEMPTY && hasSnaps(pool, name):
		return errno.Errorf(code, "image has snapshots - these must be deleted with 'rbd snap purge' before the image can be removed.")
	case code == syscall.ENOTEMPTY:
		return errno.Errorf(code, "image has snapshots with linked clones - these must be deleted or flattened before the image can be removed.")
	case code == syscall.EUCLEAN:
		return errno.Errorf(code, "error: image not fully moved to trash.")
	case code == syscall.EBUSY:
		return errors.Join(
			errno.Errorf(code, "error: image still has watchers"),
			&errno.Error{Code: code, Bare: true, Line: stillWatched},
		)
	case code == syscall.EMLINK:
		return inGroup(groupSpec(c, pool, name))
	}
	return errno.Wrap(err, "delete error")
}

// inGroup is the error of an image that a group has, whose name may be empty.
func inGroup(group string) error {
	line := "error: image belongs to a group"
	if group != "" {
		line += " " + group
	}
	return errors.Join(
		errno.Errorf(syscall.EMLINK, "%s", line),
		&errno.Error{Code: syscall.EMLINK, Bare: true, Line: "Remove the image from the group and try again."},
	)
}

func hasSnaps(pool *rados.IOContext, name string) bool {
	image, err := rbd.OpenImageReadOnly(pool, name, rbd.NoSnapshot)
	if err != nil {
		return false
	}
	defer image.Close()
	// A snapshot is in the trash for as long as a clone needs it.
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind != rbd.SnapNamespaceTypeTrash })
	return err == nil && len(snaps) > 0
}

func groupSpec(c *call, pool *rados.IOContext, name string) string {
	image, err := rbd.OpenImageReadOnly(pool, name, rbd.NoSnapshot)
	if err != nil {
		return ""
	}
	defer image.Close()
	group, err := groupOf(c, pool, image)
	if err != nil {
		return ""
	}
	return group
}
