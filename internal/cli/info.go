package cli

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var infoCommand = &command{
	Command: args.Command{
		Path:     []string{"info"},
		Operands: []args.Operand{imageOrSnapSpec},
		Options: []args.Option{
			poolOption, namespaceOption, imageOption, snapOption,
			imageIDOption, formatOption, prettyOption,
		},
		Short: "Show information about image size, striping, etc.",
	},
	run: func(c *call) error {
		s, id, err := c.specOrID(spec.Form{Snap: spec.MaySnap}, imageTwice)
		if err != nil {
			return err
		}
		f, err := c.formatter()
		if err != nil {
			return err
		}
		pool, image, err := c.openImage(s, id, true)
		if err != nil {
			return err
		}
		info, err := readInfo(c, pool, image, s.Snap)
		if err != nil {
			return errno.Wrap(err, "info")
		}
		if f == nil {
			info.print(c.stdout)
			return nil
		}
		info.write(f)
		return f.Flush(c.stdout)
	},
}

// imageInfo is what there is to say about an image.
type imageInfo struct {
	name, id    string
	stat        *rbd.ImageInfo
	old         bool // format 1
	snaps       int
	dataPool    string // empty where it is the image's own
	prefix      string
	features    uint64
	opFeatures  uint64
	flags       uint64
	group       string
	times       []timestamp
	protected   *bool // of the snapshot, nil without one
	limit       uint64
	parent      *rbd.ParentInfo
	overlap     uint64
	stripeUnit  uint64
	stripeCount uint64
	mirror      *rbd.MirrorImageInfo
	mirrorMode  rbd.ImageMirrorMode
}

type timestamp struct{ name, text string }

func readInfo(c *call, pool *rados.IOContext, image *rbd.Image, snap string) (i imageInfo, err error) {
	// These three ask the cluster; the rest is known since the image was opened.
	var remote errgroup.Group
	remote.Go(func() (err error) {
		i.limit, err = librbd.SnapLimit(image)
		return err
	})
	remote.Go(func() (err error) {
		i.group, err = groupOf(c, pool, image)
		return err
	})
	remote.Go(func() (err error) {
		if i.mirror, err = image.GetMirrorImageInfo(); err != nil || i.mirror.State == rbd.MirrorImageDisabled {
			return err
		}
		i.mirrorMode, err = image.GetImageMirrorMode()
		return err
	})
	// Nothing may use the image's memory any more when an error ends the process.
	defer func() { err = errors.Join(err, remote.Wait()) }()

	if i.name, err = librbd.Name(image); err != nil {
		return i, err
	}
	if i.stat, err = image.Stat(); err != nil {
		return i, err
	}
	if i.old, err = image.IsOldFormat(); err != nil {
		return i, err
	}
	if !i.old {
		if i.id, err = image.GetId(); err != nil {
			return i, err
		}
		if i.dataPool, err = dataPoolOf(c, pool, image); err != nil {
			return i, err
		}
		if i.opFeatures, err = librbd.OperationFeatures(image); err != nil {
			return i, err
		}
	}
	if i.overlap, err = image.GetOverlap(); err != nil {
		return i, err
	}
	if i.features, err = image.GetFeatures(); err != nil {
		return i, err
	}
	if i.flags, err = librbd.Flags(image); err != nil {
		return i, err
	}
	if snap != "" {
		protected, err := image.GetSnapshot(snap).IsProtected()
		if err != nil {
			return i, err
		}
		i.protected = &protected
	}
	snaps, err := image.GetSnapshotNames()
	if err != nil {
		return i, err
	}
	i.snaps = len(snaps)
	if i.prefix, err = librbd.BlockNamePrefix(image); err != nil {
		return i, err
	}
	for _, t := range []struct {
		name string
		get  func() (rbd.Timespec, error)
	}{
		{"create_timestamp", image.GetCreateTimestamp},
		{"access_timestamp", image.GetAccessTimestamp},
		{"modify_timestamp", image.GetModifyTimestamp},
	} {
		if at, err := t.get(); err == nil && at.Sec != 0 {
			i.times = append(i.times, timestamp{t.name, librbd.CTime(at.Sec)})
		}
	}
	// An image whose parent cannot be told is shown without one.
	i.parent, _ = image.GetParent()
	if i.features&rbd.FeatureStripingV2 != 0 {
		if i.stripeUnit, err = image.GetStripeUnit(); err != nil {
			return i, err
		}
		if i.stripeCount, err = image.GetStripeCount(); err != nil {
			return i, err
		}
	}
	return i, nil
}

func dataPoolOf(c *call, pool *rados.IOContext, image *rbd.Image) (string, error) {
	id, err := image.GetDataPoolID()
	if err != nil || id == pool.GetPoolID() {
		return "", err
	}
	return c.poolName(id, "<missing data pool "+strconv.FormatInt(id, 10)+">")
}

func groupOf(c *call, pool *rados.IOContext, image *rbd.Image) (string, error) {
	group, err := image.GetGroup()
	if err != nil || group.PoolID < 0 {
		return "", err
	}
	name, err := c.poolName(group.PoolID, "<missing group pool "+strconv.FormatInt(group.PoolID, 10)+">")
	if err != nil {
		return "", err
	}
	namespace, err := pool.GetNamespace()
	if err != nil {
		return "", err
	}
	return spec.Spec{Pool: name, Namespace: namespace, Image: group.Name}.String(), nil
}

func (i imageInfo) mirrored() bool {
	return i.features&rbd.FeatureJournaling != 0 || i.mirror.State != rbd.MirrorImageDisabled
}

func (i imageInfo) print(w io.Writer) {
	line := func(name, format string, a ...any) {
		fmt.Fprintf(w, "\t%s "+format+"\n", append([]any{name}, a...)...)
	}
	fmt.Fprintf(w, "rbd image '%s':\n", i.name)
	line("size", "%s in %d objects", output.Size(i.stat.Size), i.stat.Num_objs)
	line("order", "%d (%s objects)", i.stat.Order, output.Size(i.stat.Obj_size))
	line("snapshot_count:", "%d", i.snaps)
	if i.id != "" {
		line("id:", "%s", i.id)
	}
	if i.dataPool != "" {
		line("data_pool:", "%s", i.dataPool)
	}
	line("block_name_prefix:", "%s", i.prefix)
	line("format:", "%d", i.format())
	if !i.old {
		line("features:", "%s", strings.Join(namesOf(featureBits, i.features), ", "))
		line("op_features:", "%s", strings.Join(namesOf(operationBits, i.opFeatures), ", "))
		line("flags:", "%s", strings.Join(namesOf(flagBits, i.flags), ", "))
	}
	if i.group != "" {
		line("group:", "%s", i.group)
	}
	for _, t := range i.times {
		line(t.name+":", "%s", t.text)
	}
	if i.protected != nil {
		text := "False"
		if *i.protected {
			text = "True"
		}
		line("protected:", "%s", text)
	}
	if i.limit != math.MaxUint64 {
		line("snapshot_limit:", "%d", i.limit)
	}
	if p := i.parent; p != nil {
		trash := ""
		if p.Image.Trash {
			trash = " (trash " + p.Image.ImageID + ")"
		}
		line("parent:", "%s%s", parentSpec(p), trash)
		line("overlap:", "%s", output.Size(i.overlap))
	}
	if i.features&rbd.FeatureStripingV2 != 0 {
		line("stripe unit:", "%s", output.Size(i.stripeUnit))
		line("stripe count:", "%d", i.stripeCount)
	}
	if i.features&rbd.FeatureJournaling != 0 {
		line("journal:", "%s", i.id)
	}
	if i.mirrored() {
		line("mirroring state:", "%s", mirrorState(i.mirror.State))
		if i.mirror.State != rbd.MirrorImageDisabled {
			line("mirroring mode:", "%s", mirrorMode(i.mirrorMode))
			line("mirroring global id:", "%s", i.mirror.GlobalID)
			line("mirroring primary:", "%t", i.mirror.Primary)
		}
	}
}

func (i imageInfo) write(f output.Formatter) {
	list := func(name string, bits []bit, set uint64) {
		f.OpenArray(name + "s")
		for _, n := range namesOf(bits, set) {
			f.String(name, n)
		}
		f.Close()
	}
	f.OpenObject("image")
	f.String("name", i.name)
	f.String("id", i.id)
	f.Uint("size", i.stat.Size)
	f.Uint("objects", i.stat.Num_objs)
	f.Int("order", int64(i.stat.Order))
	f.Uint("object_size", i.stat.Obj_size)
	f.Int("snapshot_count", int64(i.snaps))
	if i.dataPool != "" {
		f.String("data_pool", i.dataPool)
	}
	f.String("block_name_prefix", i.prefix)
	f.Int("format", int64(i.format()))
	if !i.old {
		list("feature", featureBits, i.features)
		list("op_feature", operationBits, i.opFeatures)
		list("flag", flagBits, i.flags)
	}
	if i.group != "" {
		f.String("group", i.group)
	}
	for _, t := range i.times {
		f.String(t.name, t.text)
	}
	if i.protected != nil {
		f.String("protected", strconv.FormatBool(*i.protected))
	}
	if i.limit != math.MaxUint64 {
		f.Uint("snapshot_limit", i.limit)
	}
	if p := i.parent; p != nil {
		f.OpenObject("parent")
		f.String("pool", p.Image.PoolName)
		f.String("pool_namespace", p.Image.PoolNamespace)
		f.String("image", p.Image.ImageName)
		f.String("id", p.Image.ImageID)
		f.String("snapshot", p.Snap.SnapName)
		f.Bool("trash", p.Image.Trash)
		f.Uint("overlap", i.overlap)
		f.Close()
	}
	if i.features&rbd.FeatureStripingV2 != 0 {
		f.Uint("stripe_unit", i.stripeUnit)
		f.Uint("stripe_count", i.stripeCount)
	}
	if i.features&rbd.FeatureJournaling != 0 {
		f.String("journal", i.id)
	}
	if i.mirrored() {
		f.OpenObject("mirroring")
		f.String("mode", mirrorMode(i.mirrorMode))
		f.String("state", mirrorState(i.mirror.State))
		if i.mirror.State != rbd.MirrorImageDisabled {
			f.String("global_id", i.mirror.GlobalID)
			f.Bool("primary", i.mirror.Primary)
		}
		f.Close()
	}
	f.Close()
}

func (i imageInfo) format() int {
	if i.old {
		return 1
	}
	return 2
}

func parentSpec(p *rbd.ParentInfo) string {
	return spec.Spec{
		Pool: p.Image.PoolName, Namespace: p.Image.PoolNamespace,
		Image: p.Image.ImageName, Snap: p.Snap.SnapName,
	}.String()
}

func mirrorState(s rbd.MirrorImageState) string {
	switch s {
	case rbd.MirrorImageDisabling, rbd.MirrorImageEnabled, rbd.MirrorImageDisabled:
		return s.String()
	}
	return "unknown"
}

func mirrorMode(m rbd.ImageMirrorMode) string {
	switch m {
	case rbd.ImageMirrorModeJournal:
		return "journal"
	case rbd.ImageMirrorModeSnapshot:
		return "snapshot"
	}
	return "unknown"
}

// poolName is the name of the pool with that id, missing where it is gone.
func (c *call) poolName(id int64, missing string) (string, error) {
	conn, err := c.cluster.Connect()
	if err != nil {
		return "", err
	}
	name, err := conn.GetPoolByID(id)
	if errno.Code(err) == syscall.ENOENT {
		return missing, nil
	}
	return name, err
}
