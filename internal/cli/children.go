package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var childrenCommand = &command{
	Command: args.Command{
		Path:     []string{"children"},
		Operands: []args.Operand{imageOrSnapSpec},
		Options: slices.Concat([]args.Option{poolOption, namespaceOption, imageOption, snapOption}, since(18, imageIDOption), []args.Option{
			{Name: "snap-id", Arg: "arg", Help: "snapshot id", Check: isA(unsigned)},
			{Name: "all", Short: "a", Help: "list all children (include trash)"},
			{Name: "descendants", Help: "include all descendants"},
			formatOption, prettyOption,
		}),
		Short: "Display children of an image or its snapshot.",
	},
	run: children,
}

func children(c *call) (err error) {
	id := c.String("image-id")
	s, err := c.spec(spec.Form{Snap: spec.MaySnap, Optional: id != ""})
	if err != nil {
		return err
	}
	if id != "" && s.Image != "" {
		return errno.Errorf(syscall.EINVAL, "trying to access image using both name and id.")
	}
	byID := c.IsSet("snap-id")
	if byID && s.Snap != "" {
		return errno.Errorf(syscall.EINVAL, "trying to access snapshot using both name and id.")
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	snap := s.Snap
	s.Snap = ""
	pool, image, err := c.openImage(s, id, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	switch {
	case byID:
		err = image.SetSnapByID(c.number("snap-id", unsigned))
	case snap != "":
		err = image.SetSnapshot(snap)
	}
	if errno.Code(err) == syscall.ENOENT {
		return errno.Errorf(syscall.ENOENT, "snapshot does not exist.")
	}
	if err != nil {
		return errno.Wrap(err, "error setting snapshot")
	}
	list, err := c.listChildren(pool, image, snap)
	if err != nil {
		return errno.Wrap(err, "listing children failed")
	}
	return printChildren(c, f, list)
}

// listChildren lists the clones of an image at its snapshot of that name, "" for the one by --snap-id, or for all.
func (c *call) listChildren(pool *rados.IOContext, image *rbd.Image, snap string) ([]rbd.ImageSpec, error) {
	if list, ok := c.readChildren(pool, image, snap); ok {
		return list, nil
	}
	return librbd.Children(image, c.Bool("descendants"))
}

func (c *call) readChildren(pool *rados.IOContext, image *rbd.Image, snap string) ([]rbd.ImageSpec, bool) {
	conn, err := c.cluster.Connect()
	if err != nil || c.Bool("descendants") {
		return nil, false
	}
	var snaps []uint64
	switch {
	case c.IsSet("snap-id"):
		snaps = []uint64{c.number("snap-id", unsigned)}
	case snap != "":
		n, err := image.GetSnapID(snap)
		if err != nil {
			return nil, false
		}
		snaps = []uint64{n}
	default:
		all, err := image.GetSnapshotNames()
		if err != nil {
			return nil, false
		}
		for _, s := range all {
			snaps = append(snaps, s.Id)
		}
	}
	id, err := image.GetId()
	if err != nil {
		return nil, false
	}
	return librbd.ReadChildren(conn, pool, id, snaps, c.concurrency())
}

func printChildren(c *call, f output.Formatter, list []rbd.ImageSpec) error {
	all := c.Bool("all")
	if f != nil {
		f.OpenArray("children")
	}
	for _, child := range list {
		if child.Trash && !all {
			continue
		}
		if f == nil {
			line := spec.Spec{Pool: child.PoolName, Namespace: child.PoolNamespace, Image: child.ImageName}.String()
			switch {
			case child.PoolName == "": // it is gone, and the image with it
				gone := spec.Spec{Pool: strconv.FormatUint(child.PoolID, 10), Namespace: child.PoolNamespace, Image: child.ImageID}
				line = "(child missing " + gone.String() + ")"
			case child.Trash:
				line += " (trash " + child.ImageID + ")"
			}
			fmt.Fprintln(c.stdout, line)
			continue
		}
		f.OpenObject("child")
		f.String("pool", child.PoolName)
		f.String("pool_namespace", child.PoolNamespace)
		f.String("image", child.ImageName)
		if all {
			f.String("id", child.ImageID)
			f.Bool("trash", child.Trash)
		}
		f.Close()
	}
	if f == nil {
		return nil
	}
	f.Close()
	return f.Flush(c.stdout)
}
