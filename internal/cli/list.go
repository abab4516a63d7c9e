package cli

import (
	"errors"
	"strconv"
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

var listCommands = []*command{{
	Command: args.Command{
		Path:     []string{"list"},
		Aliases:  [][]string{{"ls"}},
		Operands: []args.Operand{poolSpec},
		Options: []args.Option{
			{Name: "long", Short: "l", Help: "long listing format"},
			poolOption, namespaceOption, formatOption, prettyOption,
		},
		Short: "List rbd images.",
	},
	run: func(c *call) error {
		s, err := c.pool(spec.Any)
		if err != nil {
			return err
		}
		f, err := c.formatter()
		if err != nil {
			return err
		}
		io, err := c.cluster.Pool(s.Pool, s.Namespace)
		if err == nil {
			err = list(c, io, f)
		}
		if err != nil {
			return errors.Join(err, errno.Wrap(err, "listing images failed"))
		}
		return nil
	},
}}

func list(c *call, io *rados.IOContext, f output.Formatter) error {
	if !c.Bool("long") {
		names, err := librbd.Names(io)
		if err == nil {
			return printNames(c, f, "images", names)
		}
		if errno.Code(err) == syscall.ETIMEDOUT { // it would be as long again
			return &errno.Error{Code: syscall.ETIMEDOUT, Err: err}
		}
	}
	images, err := librbd.Directory(io)
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Err: err}
	}
	if c.Bool("long") {
		return listLong(c, io, images, f)
	}
	names := make([]string, len(images))
	for i, image := range images {
		names[i] = image.Name
	}
	return printNames(c, f, "images", names)
}

// printNames prints a name a line, or an array of what they are the names of.
func printNames(c *call, f output.Formatter, what string, names []string) error {
	if f == nil {
		for _, name := range names {
			_, _ = c.stdout.WriteString(name) // what fails is kept until the flush
			_ = c.stdout.WriteByte('\n')
		}
		return nil
	}
	f.OpenArray(what)
	for _, name := range names {
		f.String("name", name)
	}
	f.Close()
	return f.Flush(c.stdout)
}

// listed is an image as "ls -l" shows it, or one of its snapshots.
type listed struct {
	name, id  string
	snap      string
	snapID    uint64
	size      uint64
	parent    *rbd.ParentInfo
	format    int
	protected bool
	lock      string // "exclusive", "shared" or none
}

// listLong inspects the images, several at a time, and lists them and their
// snapshots in the order of names. Of an image that cannot be opened there is a
// line on stderr; that of the last image counts.
func listLong(c *call, io *rados.IOContext, images []librbd.Entry, f output.Formatter) error {
	// Nothing is read from the images.
	_ = c.cluster.SetConfig("rbd_cache", "false")
	rows, failed := make([][]listed, len(images)), make([]error, len(images))
	group, stood := errgroup.WithContext(c.Context.Context)
	group.SetLimit(c.concurrency())
	for i, image := range images {
		group.Go(func() error {
			if stood.Err() != nil {
				return nil
			}
			rows[i], failed[i] = inspect(io, image)
			return standsStill(failed[i])
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var last error
	for _, err := range failed {
		if last = nil; err != nil {
			printSteps(err, c.stderr)
			last = &errno.Error{Code: errno.Code(err), Err: err} // it is printed
		}
	}
	if f != nil {
		f.OpenArray("images")
		for _, image := range rows {
			for _, row := range image {
				row.write(f)
			}
		}
		f.Close()
		return errors.Join(last, f.Flush(c.stdout))
	}
	table := output.NewTable(
		output.Column{Heading: "NAME"},
		output.Column{Heading: "SIZE", Cells: output.Right},
		output.Column{Heading: "PARENT"},
		output.Column{Heading: "FMT", Cells: output.Right},
		output.Column{Heading: "PROT"},
		output.Column{Heading: "LOCK"},
	)
	for _, image := range rows {
		for _, row := range image {
			table.Row(row.cells()...)
		}
	}
	if len(images) == 0 {
		return nil
	}
	return errors.Join(last, table.Flush(c.stdout))
}

// standsStill is the error of a cluster that left a request without an answer:
// then the next one would wait as long again.
func standsStill(err error) error {
	if err != nil && errno.Code(err) == syscall.ETIMEDOUT {
		return err
	}
	return nil
}

func inspect(io *rados.IOContext, i librbd.Entry) ([]listed, error) {
	name := i.Name
	// One that is half removed has a name in the list alone.
	if _, err := io.Stat("rbd_id." + name); err == nil {
		if plain, ok := librbd.ReadPlain(io, i.ID); ok {
			return []listed{{name: name, id: i.ID, size: plain.Size, format: 2, lock: lockType(plain.Locked, plain.Exclusive)}}, nil
		}
	}
	image, err := rbd.OpenImageReadOnly(io, name, "")
	if err != nil {
		return nil, errno.Wrap(err, "error opening "+name)
	}
	defer image.Close()
	head := listed{name: name, id: i.ID, format: 2}
	if head.id == "" {
		head.format = 1
	}
	if head.size, err = image.GetSize(); err != nil {
		return nil, err
	}
	if head.parent, err = parentOf(image); err != nil {
		return nil, err
	}
	_, lockers, err := image.ListLockers()
	if err != nil {
		return nil, err
	}
	exclusive, err := librbd.LockIsExclusive(image)
	if err != nil {
		return nil, err
	}
	head.lock = lockType(len(lockers) > 0, exclusive)
	snaps, err := image.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	rows := []listed{head}
	for _, s := range snaps {
		row := listed{name: name, id: head.id, snap: s.Name, snapID: s.Id, size: s.Size, format: head.format}
		if err := image.SetSnapshot(s.Name); err != nil {
			continue // removed meanwhile
		}
		if row.protected, err = image.GetSnapshot(s.Name).IsProtected(); err != nil {
			return nil, err
		}
		if row.parent, err = parentOf(image); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func lockType(locked, exclusive bool) string {
	switch {
	case !locked:
		return ""
	case exclusive:
		return "exclusive"
	}
	return "shared"
}

// parentOf is nil for an image that is no clone.
func parentOf(image *rbd.Image) (*rbd.ParentInfo, error) {
	parent, err := image.GetParent()
	if errors.Is(err, rbd.ErrNotFound) {
		return nil, nil
	}
	return parent, err
}

func (r listed) cells() []string {
	name, parent, protected, lock := r.name, "", "", ""
	if r.snap != "" {
		name += "@" + r.snap
	}
	if p := r.parent; p != nil {
		parent = parentSpec(p)
	}
	if r.protected {
		protected = "yes"
	}
	switch r.lock {
	case "exclusive":
		lock = "excl"
	case "shared":
		lock = "shr"
	}
	return []string{name, output.Size(r.size), parent, strconv.Itoa(r.format), protected, lock}
}

func (r listed) write(f output.Formatter) {
	kind := "image"
	if r.snap != "" {
		kind = "snapshot"
	}
	f.OpenObject(kind)
	f.String("image", r.name)
	f.String("id", r.id)
	if r.snap != "" {
		f.String("snapshot", r.snap)
		f.Uint("snapshot_id", r.snapID)
	}
	f.Uint("size", r.size)
	if p := r.parent; p != nil {
		f.OpenObject("parent")
		f.String("pool", p.Image.PoolName)
		f.String("pool_namespace", p.Image.PoolNamespace)
		f.String("image", p.Image.ImageName)
		f.String("snapshot", p.Snap.SnapName)
		f.Close()
	}
	f.Int("format", int64(r.format))
	if r.snap != "" {
		f.String("protected", strconv.FormatBool(r.protected))
	}
	if r.lock != "" {
		f.String("lock_type", r.lock)
	}
	f.Close()
}
