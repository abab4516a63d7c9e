package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

const (
	groupExample     = "group specification\n(example: [<pool-name>/[<namespace>/]]<group-name>)"
	groupSnapExample = "group specification\n(example: [<pool-name>/[<namespace>/]]<group-name>@<snap-name>)"
)

var (
	groupSpecOperand     = args.Operand{Name: "group-spec", Help: groupExample}
	groupSnapSpecOperand = args.Operand{Name: "group-snap-spec", Help: groupSnapExample}

	groupOption      = args.Option{Name: "group", Arg: "arg", Help: "group name"}
	groupOptions     = []args.Option{poolOption, namespaceOption, groupOption}
	groupSnapOptions = append(groupOptions[:3:3], snapOption)
	groupImage       = []args.Option{
		{Name: "group-pool", Arg: "arg", Help: "group pool name"},
		{Name: "group-namespace", Arg: "arg", Help: "group namespace name"},
		groupOption,
		{Name: "image-pool", Arg: "arg", Help: "image pool name"},
		{Name: "image-namespace", Arg: "arg", Help: "image namespace name"},
		imageOption,
		{Name: "pool", Short: "p", Arg: "arg", Help: "pool name unless overridden"},
	}
)

var groupCommands = append(since(20, groupInfoCommand, groupSnapInfoCommand), []*command{
	{
		Command: args.Command{
			Path:     []string{"group", "create"},
			Operands: []args.Operand{groupSpecOperand},
			Options:  groupOptions,
			Short:    "Create a group.",
		},
		run: func(c *call) error {
			s, pool, err := c.openGroup()
			if err != nil {
				return err
			}
			return errno.Wrap(rbd.GroupCreate(pool, s.Image), "create error")
		},
	},
	{
		Command: args.Command{
			Path:     []string{"group", "image", "add"},
			Operands: []args.Operand{groupSpecOperand, imageSpec},
			Options:  groupImage,
			Short:    "Add an image to a group.",
		},
		run: func(c *call) error {
			group, image, err := groupAndImage(c, "")
			if err != nil {
				return err
			}
			return errno.Wrap(rbd.GroupImageAdd(group.pool, group.name, image.pool, image.name), "add image error")
		},
	},
	{
		Command: args.Command{
			Path:     []string{"group", "image", "list"},
			Aliases:  [][]string{{"group", "image", "ls"}},
			Operands: []args.Operand{groupSpecOperand},
			Options:  append([]args.Option{formatOption, prettyOption}, groupOptions...),
			Short:    "List images in a group.",
		},
		run: groupImageList,
	},
	{
		Command: args.Command{
			Path:     []string{"group", "image", "remove"},
			Aliases:  [][]string{{"group", "image", "rm"}},
			Operands: []args.Operand{groupSpecOperand, imageSpec},
			Options:  append(groupImage[:len(groupImage):len(groupImage)], imageIDOption),
			Short:    "Remove an image from a group.",
		},
		run: func(c *call) error {
			id := c.String("image-id")
			group, image, err := groupAndImage(c, id)
			if err != nil {
				return err
			}
			if id != "" {
				err = rbd.GroupImageRemoveByID(group.pool, group.name, image.pool, id)
			} else {
				err = rbd.GroupImageRemove(group.pool, group.name, image.pool, image.name)
			}
			return errno.Wrap(err, "remove image error")
		},
	},
	{
		Command: args.Command{
			Path:     []string{"group", "list"},
			Aliases:  [][]string{{"group", "ls"}},
			Operands: []args.Operand{poolSpec},
			Options:  []args.Option{poolOption, namespaceOption, formatOption, prettyOption},
			Short:    "List rbd groups.",
		},
		run: groupList,
	},
	{
		Command: args.Command{
			Path:     []string{"group", "remove"},
			Aliases:  [][]string{{"group", "rm"}},
			Operands: []args.Operand{groupSpecOperand},
			Options:  groupOptions,
			Short:    "Delete a group.",
		},
		run: func(c *call) error {
			s, pool, err := c.openGroup()
			if err != nil {
				return err
			}
			return errno.Wrap(rbd.GroupRemove(pool, s.Image), "remove error")
		},
	},
	{
		Command: args.Command{
			Path: []string{"group", "rename"},
			Operands: []args.Operand{
				{Name: "source-group-spec", Help: "source " + groupExample},
				{Name: "dest-group-spec", Help: "destination " + groupExample},
			},
			Options: []args.Option{
				sourcePoolOption, sourceNamespaceOption, {Name: "group", Arg: "arg", Help: "source group name"},
				destPoolOption, destNamespaceOption, {Name: "dest-group", Arg: "arg", Help: "destination group name"},
			},
			Short: "Rename a group within pool.",
		},
		run: groupRename,
	},
	{
		Command: args.Command{
			Path:     []string{"group", "snap", "create"},
			Operands: []args.Operand{groupSnapSpecOperand},
			Options:  append(groupSnapOptions[:4:4], quiesceOptions...),
			Short:    "Make a snapshot of a group.",
		},
		run: func(c *call) error {
			s, err := c.group(spec.NeedSnap)
			if err != nil {
				return err
			}
			flags, err := c.quiesceFlags()
			if err != nil {
				return err
			}
			pool, err := c.cluster.Pool(s.Pool, s.Namespace)
			if err != nil {
				return err
			}
			return silent(librbd.CreateGroupSnap(pool, s.Image, s.Snap, flags))
		},
	},
	{
		Command: args.Command{
			Path:     []string{"group", "snap", "list"},
			Aliases:  [][]string{{"group", "snap", "ls"}},
			Operands: []args.Operand{groupSpecOperand},
			Options:  append([]args.Option{formatOption, prettyOption}, groupOptions...),
			Short:    "List snapshots of a group.",
		},
		run: groupSnapList,
	},
	{
		Command: args.Command{
			Path:     []string{"group", "snap", "remove"},
			Aliases:  [][]string{{"group", "snap", "rm"}},
			Operands: []args.Operand{groupSnapSpecOperand},
			Options:  groupSnapOptions,
			Short:    "Remove a snapshot from a group.",
		},
		run: func(c *call) error {
			s, pool, err := c.openGroupSnap()
			if err != nil {
				return err
			}
			return errno.Wrap(rbd.GroupSnapRemove(pool, s.Image, s.Snap), "failed to remove group snapshot")
		},
	},
	{
		Command: args.Command{
			Path: []string{"group", "snap", "rename"},
			Operands: []args.Operand{
				groupSnapSpecOperand,
				{Name: "dest-snap", Help: "destination snapshot name\n(example: <snap-name>)"},
			},
			Options: append(groupSnapOptions[:4:4], args.Option{Name: "dest-snap", Arg: "arg", Help: "destination snapshot name"}),
			Short:   "Rename group's snapshot.",
		},
		run: groupSnapRename,
	},
	{
		Command: args.Command{
			Path:     []string{"group", "snap", "rollback"},
			Operands: []args.Operand{groupSnapSpecOperand},
			Options:  append([]args.Option{noProgress}, groupSnapOptions...),
			Short:    "Rollback group to snapshot.",
		},
		run: func(c *call) error {
			s, pool, err := c.openGroupSnap()
			if err != nil {
				return err
			}
			err = c.withProgress("Rolling back to group snapshot", 0, func(p librbd.Progress) error {
				return rbd.GroupSnapRollbackWithProgress(pool, s.Image, s.Snap, func(done, total uint64, _ any) int {
					p(done, total)
					return 0
				}, nil)
			})
			return errno.Wrap(err, "rollback group to snapshot failed")
		},
	},
}...)

// silent is an error of which only the exit code is told: librbd's log has
// its words.
func silent(err error) error {
	if err == nil {
		return nil
	}
	return &errno.Error{Code: errno.Code(err), Err: err}
}

// group reads the spec of a group, whose name is in Image.
func (c *call) group(snap spec.Snap) (spec.Spec, error) {
	return c.specBy(spec.Form{Kind: "group", Names: spec.New, Snap: snap}, "pool", "namespace", "group", "snap")
}

func (c *call) openGroup() (spec.Spec, *rados.IOContext, error) { return c.openGroupAt(spec.NoSnap) }

func (c *call) openGroupSnap() (spec.Spec, *rados.IOContext, error) {
	return c.openGroupAt(spec.NeedSnap)
}

func (c *call) openGroupAt(snap spec.Snap) (s spec.Spec, pool *rados.IOContext, err error) {
	if s, err = c.group(snap); err == nil {
		pool, err = c.cluster.Pool(s.Pool, s.Namespace)
	}
	return s, pool, err
}

// inPool is something with a name in an open pool.
type inPool struct {
	pool *rados.IOContext
	name string
}

// groupAndImage reads the specs of a group and of an image, which may be
// given by id instead.
func groupAndImage(c *call, id string) (group, image inPool, err error) {
	groupNamespace, imageNamespace := "group-namespace", "image-namespace"
	if librbd.Release < 18 { // where it takes them, but not into account
		groupNamespace, imageNamespace = "namespace", "namespace"
	}
	g, err := c.specBy(spec.Form{Kind: "group", Names: spec.New}, "group-pool", groupNamespace, "group", "")
	if err != nil {
		return group, image, err
	}
	i, err := c.specBy(spec.Form{Names: spec.New, Optional: id != ""}, "image-pool", imageNamespace, "image", "")
	switch {
	case err != nil:
	case g.Namespace != i.Namespace:
		err = errno.Errorf(syscall.EINVAL, "group and image namespace must match.")
	case id != "" && i.Image != "":
		err = errno.Errorf(syscall.EINVAL, imageTwice)
	}
	if err != nil {
		return group, image, err
	}
	group.name, image.name = g.Image, i.Image
	if group.pool, err = c.cluster.Pool(g.Pool, g.Namespace); err == nil {
		image.pool, err = c.cluster.Pool(i.Pool, i.Namespace)
	}
	return group, image, err
}

func groupList(c *call) error {
	s, err := c.pool(spec.Any)
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	names, err := rbd.GroupList(pool)
	if err != nil {
		return silent(err)
	}
	return printNames(c, f, "groups", names)
}

func groupImageList(c *call) error {
	s, err := c.group(spec.NoSnap)
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	conn, err := c.cluster.Connect()
	if err != nil {
		return err
	}
	images, err := librbd.GroupImages(conn, pool, s.Image)
	if err != nil && errno.Code(err) != syscall.ENOENT {
		return silent(err)
	}
	slices.SortFunc(images, func(a, b rbd.GroupImageInfo) int {
		return cmp.Or(cmp.Compare(a.PoolID, b.PoolID), cmp.Compare(a.Name, b.Name))
	})
	if f != nil {
		f.OpenArray("images")
	}
	for _, i := range images {
		name, err := c.poolName(i.PoolID, fmt.Sprintf("<missing image pool %d>", i.PoolID))
		if err != nil {
			return err
		}
		if f == nil {
			state := ""
			if i.State == rbd.GroupImageStateIncomplete {
				state = "incomplete"
			}
			fmt.Fprintln(c.stdout, spec.Spec{Pool: name, Namespace: s.Namespace, Image: i.Name}, state)
			continue
		}
		f.OpenObject("image")
		f.String("image", i.Name)
		f.String("pool", name)
		f.String("namespace", s.Namespace)
		f.Int("state", int64(i.State))
		f.Close()
	}
	if f == nil {
		return nil
	}
	f.Close()
	return f.Flush(c.stdout)
}

func groupRename(c *call) error {
	s, err := c.group(spec.NoSnap)
	if err != nil {
		return err
	}
	d, err := withoutSnap(c.specBy(spec.Form{Kind: "group", Names: spec.New, Dest: true, Snap: spec.MaySnap},
		"dest-pool", "dest-namespace", "dest-group", ""))
	if err != nil {
		return err
	}
	if err := samePlace("group rename", ",", s, d); err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	return errno.Wrap(rbd.GroupRename(pool, s.Image, d.Image), "failed to rename group")
}

func groupSnapRename(c *call) error {
	s, err := c.group(spec.NeedSnap)
	if err != nil {
		return err
	}
	dest := c.String("dest-snap")
	if dest == "" {
		dest = c.operand()
	}
	switch {
	case dest == "":
		return errno.Errorf(syscall.EINVAL, "destination snapshot name was not specified")
	case strings.ContainsAny(dest, "/@"):
		return errno.Errorf(syscall.EINVAL, "invalid snap name '%s'", dest)
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	return errno.Wrap(rbd.GroupSnapRename(pool, s.Image, s.Snap, dest), "failed to rename group snapshot")
}

func groupSnapList(c *call) error {
	s, err := c.group(spec.NoSnap)
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	columns := []output.Column{{Heading: "NAME"}, {Heading: "STATUS", Cells: output.Right}}
	withIDs := librbd.Release >= 20
	if withIDs {
		// A group that is not there has no snapshots for the list.
		if _, err := librbd.GroupID(pool, s.Image); err != nil {
			return silent(err)
		}
		columns = []output.Column{{Heading: "ID"}, {Heading: "NAME"}, {Heading: "STATE"}}
	}
	snaps, err := rbd.GroupSnapList(pool, s.Image)
	if err != nil && errno.Code(err) != syscall.ENOENT {
		return silent(err)
	}
	table := output.NewTable(columns...)
	if f != nil {
		f.OpenArray("group_snaps")
	}
	for _, snap := range snaps {
		state := "ok"
		if snap.State == rbd.GroupSnapStateIncomplete {
			state = "incomplete"
		}
		row := []string{snap.Name, state}
		var info rbd.GroupSnapInfo
		if withIDs {
			info, err = rbd.GroupSnapGetInfo(pool, s.Image, snap.Name)
			if errno.Code(err) == syscall.ENOENT {
				continue // removed meanwhile
			}
			if err != nil {
				return silent(err)
			}
			state = snapState(info)
			row = []string{info.ID, snap.Name, state}
		}
		if f == nil {
			table.Row(row...)
			continue
		}
		f.OpenObject("group_snap")
		if withIDs {
			f.String("id", info.ID)
		}
		f.String("snapshot", snap.Name)
		f.String("state", state)
		f.Close()
	}
	switch {
	case f != nil:
		f.Close()
		return f.Flush(c.stdout)
	case table.Len() == 0:
		return nil
	}
	return table.Flush(c.stdout)
}
