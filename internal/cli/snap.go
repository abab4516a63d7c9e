package cli

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var quiesceOptions = []args.Option{
	{Name: "skip-quiesce", Help: "do not run quiesce hooks"},
	{Name: "ignore-quiesce-error", Help: "ignore quiesce hook error"},
}

var snapCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"snap", "create"},
			Aliases:  [][]string{{"snap", "add"}},
			Operands: []args.Operand{snapSpec},
			Options: slices.Concat(
				[]args.Option{poolOption, namespaceOption, imageOption, snapOption},
				quiesceOptions, []args.Option{noProgress},
			),
			Short: "Create a snapshot.",
		},
		run: snapCreate,
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "list"},
			Aliases:  [][]string{{"snap", "ls"}},
			Operands: []args.Operand{imageSpec},
			Options: []args.Option{
				poolOption, namespaceOption, imageOption, imageIDOption, formatOption, prettyOption,
				{Name: "all", Short: "a", Help: "list snapshots from all namespaces"},
			},
			Short: "Dump list of image snapshots.",
		},
		run: snapList,
	},
	{
		Command: args.Command{
			Path:     []string{"snap", "remove"},
			Aliases:  [][]string{{"snap", "rm"}},
			Operands: []args.Operand{snapSpec},
			Options: []args.Option{
				poolOption, namespaceOption, imageOption, snapOption, imageIDOption,
				{Name: "snap-id", Arg: "arg", Help: "snapshot id", Check: isA(unsigned)},
				noProgress,
				{Name: "force", Help: "flatten children and unprotect snapshot if needed."},
			},
			Short: "Delete a snapshot.",
		},
		run: snapRemove,
	},
}

// quiesceFlags are the flags of librbd for quiesceOptions.
func (c *call) quiesceFlags() (uint32, error) {
	switch skip, ignore := c.Bool("skip-quiesce"), c.Bool("ignore-quiesce-error"); {
	case skip && ignore:
		return 0, errno.Errorf(syscall.EINVAL, "ignore-quiesce-error cannot be used together with skip-quiesce")
	case skip:
		return librbd.SkipQuiesce, nil
	case ignore:
		return librbd.IgnoreQuiesceError, nil
	}
	return 0, nil
}

func snapCreate(c *call) (err error) {
	s, err := c.spec(spec.Form{Snap: spec.NeedSnap, Names: spec.NewSnap})
	if err != nil {
		return err
	}
	flags, err := c.quiesceFlags()
	if err != nil {
		return err
	}
	image, err := c.open(spec.Spec{Pool: s.Pool, Namespace: s.Namespace, Image: s.Image}, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	err = c.withProgress("Creating snap", 0, func(p librbd.Progress) error { return librbd.CreateSnap(image, s.Snap, flags, p) })
	return errno.Wrap(err, "failed to create snapshot")
}

// noSnap is no snapshot's id: it stands for the image itself.
const noSnap = math.MaxUint64 - 1

func snapRemove(c *call) (err error) {
	form := spec.Form{Snap: spec.NeedSnap}
	snapID := uint64(noSnap)
	if c.IsSet("snap-id") {
		snapID = c.number("snap-id", unsigned)
	}
	byID := snapID != noSnap
	if byID {
		form.Snap = spec.MaySnap
	}
	s, id, err := c.specOrID(form, strings.TrimSuffix(imageTwice, " "))
	if err != nil {
		return err
	}
	switch {
	case byID && s.Snap != "":
		return errno.Errorf(syscall.EINVAL, "trying to access snapshot using both name and id.")
	case byID && (c.Bool("force") || c.Bool("no-progress")):
		return errno.Errorf(syscall.EINVAL, "force and no-progress options not permitted when removing by id.")
	}
	snap := s.Snap
	s.Snap = ""
	_, image, err := c.openFull(s, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	var flags uint32
	if c.Bool("force") {
		flags = librbd.RemoveForce
	}
	name := "'" + snap + "'"
	if byID {
		name = "id " + strconv.FormatUint(snapID, 10)
		err = librbd.RemoveSnapByID(image, snapID)
	} else {
		err = c.withProgress("Removing snap", 0, func(p librbd.Progress) error { return librbd.RemoveSnap(image, snap, flags, p) })
	}
	if err != nil && errno.Code(err) == syscall.EBUSY {
		return errno.Errorf(syscall.EBUSY, "snapshot %s is protected from removal.", name)
	}
	return errno.Wrap(err, "failed to remove snapshot")
}

func snapList(c *call) error {
	s, id, err := c.specOrID(spec.Form{}, imageTwice)
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	_, image, err := c.openImage(s, id, true)
	if err != nil {
		return err
	}
	snaps, err := readSnaps(c, image, c.Bool("all"))
	if err != nil {
		return errno.Wrap(err, "failed to list snapshots")
	}
	if f != nil {
		f.OpenArray("snapshots")
		for _, s := range snaps {
			s.write(f, c.Bool("all"))
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	if len(snaps) == 0 {
		return nil
	}
	columns := []output.Column{
		{Heading: "SNAPID", Cells: output.Right},
		{Heading: "NAME"},
		{Heading: "SIZE", Cells: output.Right},
		{Heading: "PROTECTED"},
		{Heading: "TIMESTAMP", Cells: output.Right},
	}
	if c.Bool("all") {
		columns = append(columns, output.Column{Heading: "NAMESPACE"})
	}
	table := output.NewTable(columns...)
	for _, s := range snaps {
		protected := ""
		if s.protected {
			protected = "yes"
		}
		cells := []string{strconv.FormatUint(s.Id, 10), s.Name, output.Size(s.Size), protected, s.time}
		if c.Bool("all") {
			cells = append(cells, s.namespaceCell())
		}
		table.Row(cells...)
	}
	return table.Flush(c.stdout)
}

// snapshot is a snapshot as "snap ls" shows it.
type snapshot struct {
	rbd.SnapInfo
	protected bool
	time      string // "" where it is not known
	namespace string // user, group, trash, mirror
	group     *rbd.SnapGroupNamespace
	groupPool string
	trash     *string // the name that it had
	wasOf     string  // the namespace that it was of then, "" where librbd does not tell
	mirror    *librbd.MirrorSnap
	objects   uint64 // of the image at the snapshot; for mirror only
}

var snapNamespaces = map[rbd.SnapNamespaceType]string{
	rbd.SnapNamespaceTypeUser:      "user",
	rbd.SnapNamespaceTypeGroup:     "group",
	rbd.SnapNamespaceTypeTrash:     "trash",
	librbd.SnapNamespaceTypeMirror: "mirror",
}

// snapsWhere lists the snapshots of the kinds that keep takes. Not only people
// make some: groups, mirroring and the trash do, too.
func snapsWhere(image *rbd.Image, keep func(rbd.SnapNamespaceType) bool) ([]rbd.SnapInfo, error) {
	all, err := image.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	var kept []rbd.SnapInfo
	for _, s := range all {
		kind, err := image.GetSnapNamespaceType(s.Id)
		if err != nil {
			return nil, err
		}
		if keep(kind) {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

func readSnaps(c *call, image *rbd.Image, all bool) ([]snapshot, error) {
	infos, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return all || kind == rbd.SnapNamespaceTypeUser })
	if err != nil {
		return nil, err
	}
	snaps := make([]snapshot, len(infos))
	for i, info := range infos {
		if snaps[i], err = readSnap(c, image, info); err != nil {
			return nil, err
		}
	}
	return snaps, nil
}

func readSnap(c *call, image *rbd.Image, info rbd.SnapInfo) (snapshot, error) {
	s := snapshot{SnapInfo: info, namespace: "Unknown"}
	if at, err := image.GetSnapTimestamp(info.Id); err == nil && at.Sec != 0 {
		s.time = librbd.CTime(at.Sec)
	}
	kind, err := image.GetSnapNamespaceType(info.Id)
	if err != nil {
		return s, err
	}
	s.namespace = snapNamespaces[kind]
	// What cannot be told of a namespace is left out, as far as it goes.
	switch kind {
	case rbd.SnapNamespaceTypeUser:
		if s.protected, err = image.GetSnapshot(info.Name).IsProtected(); err != nil {
			return s, err
		}
	case rbd.SnapNamespaceTypeGroup:
		if group, err := image.GetSnapGroupNamespace(info.Id); err == nil {
			s.group = group
			missing := fmt.Sprintf("<missing image pool %d>", group.Pool)
			if s.groupPool, err = c.poolName(int64(group.Pool), missing); err != nil {
				return s, err
			}
		}
	case rbd.SnapNamespaceTypeTrash:
		if name, err := image.GetSnapTrashNamespace(info.Id); err == nil {
			s.trash = &name
			if kind, err := librbd.TrashedSnapKind(image, info.Id); err == nil {
				s.wasOf = snapNamespaces[kind]
			}
		}
	case librbd.SnapNamespaceTypeMirror:
		if mirror, err := librbd.GetMirrorSnap(image, info.Id); err == nil {
			s.mirror = &mirror
			if stat, err := image.Stat(); err == nil && stat.Obj_size > 0 {
				s.objects = (info.Size + stat.Obj_size - 1) / stat.Obj_size
			}
		}
	}
	return s, nil
}

// mirrorSnapState is the part that a mirror snapshot plays, as rbd calls it.
func mirrorSnapState(state librbd.MirrorSnapState) string {
	switch state {
	case librbd.MirrorSnapPrimary:
		return "primary"
	case librbd.MirrorSnapNonPrimary:
		return "non-primary"
	case librbd.MirrorSnapPrimaryDemoted, librbd.MirrorSnapNonPrimaryDemoted:
		return "demoted"
	}
	return "unknown"
}

// copied says that a mirror snapshot is one that another cluster is copied to.
func copied(m *librbd.MirrorSnap) bool {
	return m.State == librbd.MirrorSnapNonPrimary || m.State == librbd.MirrorSnapNonPrimaryDemoted
}

func (s snapshot) namespaceCell() string {
	switch {
	case s.group != nil:
		return fmt.Sprintf("%s (%s/%s@%s)", s.namespace, s.groupPool, s.group.GroupName, s.group.GroupSnapName)
	case s.trash != nil && s.wasOf != "":
		return fmt.Sprintf("%s (%s %s)", s.namespace, s.wasOf, *s.trash)
	case s.trash != nil:
		return fmt.Sprintf("%s (%s)", s.namespace, *s.trash)
	case s.mirror != nil:
		m := s.mirror
		text := fmt.Sprintf("%s (%s peer_uuids:[%s]", s.namespace, mirrorSnapState(m.State), strings.Join(m.PeerUUIDs, ","))
		if copied(m) {
			text += fmt.Sprintf(" %s:%d ", m.PrimaryMirrorUUID, m.PrimarySnapID)
			if m.Complete {
				text += "copied"
			} else {
				text += fmt.Sprintf("%d%% copied", 100*m.LastCopiedObject/max(s.objects, 1))
			}
		}
		return text + ")"
	}
	return s.namespace
}

func (s snapshot) write(f output.Formatter, all bool) {
	f.OpenObject("snapshot")
	f.Uint("id", s.Id)
	f.String("name", s.Name)
	f.Uint("size", s.Size)
	f.String("protected", strconv.FormatBool(s.protected))
	f.String("timestamp", s.time)
	if all {
		f.OpenObject("namespace")
		f.String("type", s.namespace)
		switch {
		case s.group != nil:
			f.String("pool", s.groupPool)
			f.String("group", s.group.GroupName)
			f.String("group snap", s.group.GroupSnapName)
		case s.trash != nil:
			if s.wasOf != "" {
				f.String("original_namespace_type", s.wasOf)
			}
			f.String("original_name", *s.trash)
		case s.mirror != nil:
			m := s.mirror
			f.String("state", mirrorSnapState(m.State))
			f.OpenArray("mirror_peer_uuids")
			for _, uuid := range m.PeerUUIDs {
				f.String("peer_uuid", uuid)
			}
			f.Close()
			f.Bool("complete", m.Complete)
			if copied(m) {
				f.String("primary_mirror_uuid", m.PrimaryMirrorUUID)
				f.Uint("primary_snap_id", m.PrimarySnapID)
				f.Uint("last_copied_object_number", m.LastCopiedObject)
			}
		}
		f.Close()
	}
	f.Close()
}
