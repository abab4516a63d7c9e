package cli

import (
	"fmt"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// What came with Ceph 20.
var (
	groupInfoCommand = &command{
		Command: args.Command{
			Path:     []string{"group", "info"},
			Operands: []args.Operand{groupSpecOperand},
			Options:  append(groupOptions[:3:3], formatOption, prettyOption),
			Short:    "Show information about a group.",
		},
		run: groupInfo,
	}
	groupSnapInfoCommand = &command{
		Command: args.Command{
			Path:     []string{"group", "snap", "info"},
			Operands: []args.Operand{groupSnapSpecOperand},
			Options:  append(groupSnapOptions[:4:4], formatOption, prettyOption),
			Short:    "Show information about a group snapshot.",
		},
		run: groupSnapInfo,
	}
)

func groupInfo(c *call) error {
	s, pool, err := c.openGroup()
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	id, err := librbd.GroupID(pool, s.Image)
	if err != nil {
		return silent(err)
	}
	if f == nil {
		fmt.Fprintf(c.stdout, "rbd group '%s':\n\tid: %s\n", s.Image, id)
		return nil
	}
	f.OpenObject("group")
	f.String("group_name", s.Image)
	f.String("group_id", id)
	f.Close()
	return f.Flush(c.stdout)
}

func snapState(info rbd.GroupSnapInfo) string {
	if info.State == rbd.GroupSnapStateComplete {
		return "complete"
	}
	return "incomplete"
}

func groupSnapInfo(c *call) error {
	s, pool, err := c.openGroupSnap()
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	info, err := rbd.GroupSnapGetInfo(pool, s.Image, s.Snap)
	if err != nil {
		return errno.Wrap(err, "failed to show group snapshot")
	}
	pools := make([]string, len(info.Snapshots))
	for i, snap := range info.Snapshots {
		missing := fmt.Sprintf("<missing image pool %d>", snap.PoolID)
		if pools[i], err = c.poolName(int64(snap.PoolID), missing); err != nil {
			return err
		}
	}
	if f == nil {
		fmt.Fprintf(c.stdout, "rbd group snapshot '%s':\n\tid: %s\n\tstate: %s\n", info.Name, info.ID, snapState(info))
		if info.SnapName != "" {
			fmt.Fprintf(c.stdout, "\timage snap: %s\n", info.SnapName)
		}
		if len(pools) > 0 {
			fmt.Fprintf(c.stdout, "\timages:\n")
		}
		for i, snap := range info.Snapshots {
			image := spec.Spec{Pool: pools[i], Namespace: s.Namespace, Image: snap.Name}
			fmt.Fprintf(c.stdout, "\t\t%s (snap id: %d)\n", image, snap.SnapID)
		}
		return nil
	}
	f.OpenObject("group_snapshot")
	f.String("id", info.ID)
	f.String("name", info.Name)
	f.String("state", snapState(info))
	f.String("image_snap_name", info.SnapName)
	f.OpenArray("images")
	for i, snap := range info.Snapshots {
		f.OpenObject("image")
		f.String("pool_name", pools[i])
		f.String("namespace", s.Namespace)
		f.String("image_name", snap.Name)
		f.Uint("snap_id", snap.SnapID)
		f.Close()
	}
	f.Close()
	f.Close()
	return f.Flush(c.stdout)
}
