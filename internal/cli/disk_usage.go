package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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

var diskUsageCommand = &command{
	Command: args.Command{
		Path:     []string{"disk-usage"},
		Aliases:  [][]string{{"du"}},
		Operands: []args.Operand{imageOrSnapSpec},
		Options: []args.Option{
			poolOption, namespaceOption, imageOption, snapOption, formatOption, prettyOption,
			{Name: "from-snap", Arg: "arg", Help: "snapshot starting point"},
			{Name: "exact", Help: "compute exact disk usage (slow)"},
			{Name: "merge-snapshots", Help: "merge snapshot sizes with its image"},
		},
		Short: "Show disk usage stats for pool, image or snapshot.",
	},
	run: diskUsage,
}

func diskUsage(c *call) error {
	s, err := c.spec(spec.Form{Snap: spec.MaySnap, Optional: true})
	if err != nil {
		return err
	}
	if s.Image == "" && c.IsSet("from-snap") {
		return errno.Errorf(syscall.EINVAL, "image name was not specified")
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	// Nothing is read from the images.
	_ = c.cluster.SetConfig("rbd_cache", "false")
	return errno.Wrap(printDiskUsage(c, pool, s, f), "du failed")
}

// used is what an image or one of its snapshots takes up.
type used struct {
	name, id string
	snap     string
	snapID   uint64
	size     uint64 // bytes, as are the others
	used     uint64
}

// measured is what is said of an image: on stderr, in the list, in the total.
type measured struct {
	warnings strings.Builder
	rows     []used
	count    int // of what was measured, with what is merged into another row
	size     uint64
	used     uint64
	err      error
	skipped  bool // for its error; those after it are measured all the same
	hasSnap  bool // the one that is asked for
	last     bool // its error, or none, is all that there is to say
}

// printDiskUsage measures the images, several at a time, and prints them in
// the order of their names.
func printDiskUsage(c *call, pool *rados.IOContext, s spec.Spec, f output.Formatter) error {
	images, err := librbd.Directory(pool)
	if err != nil && errno.Code(err) != syscall.ENOENT {
		return err
	}
	if s.Image != "" {
		images = slices.DeleteFunc(images, func(e librbd.Entry) bool { return e.Name != s.Image })
		if len(images) == 0 {
			fmt.Fprintf(c.stderr, "specified image %s is not found.\n", s.Image)
			return syscall.ENOENT
		}
	}
	results := make([]measured, len(images))
	var done closing
	group, stood := errgroup.WithContext(c.Context.Context)
	group.SetLimit(c.concurrency())
	for i, image := range images {
		group.Go(func() error {
			if stood.Err() != nil {
				return nil
			}
			results[i].err = results[i].measure(c, &done, pool, image, s)
			return standsStill(results[i].err)
		})
	}
	if err := group.Wait(); err != nil {
		printSteps(err, c.stderr)
		return err
	}

	table := output.NewTable(
		output.Column{Heading: "NAME"},
		output.Column{Heading: "PROVISIONED", Cells: output.Right},
		output.Column{Heading: "USED", Cells: output.Right},
	)
	if f != nil {
		f.OpenObject("stats")
		f.OpenArray("images")
	}
	var total measured
	for i := range results {
		m := &results[i]
		fmt.Fprint(c.stderr, m.warnings.String())
		// Once an image had the snapshot, the genuine tool does not look whether others have it.
		total.hasSnap = total.hasSnap || m.hasSnap
		if s.Snap != "" && !total.hasSnap && !m.skipped && m.err == nil {
			fmt.Fprintln(c.stderr, "specified snapshot is not found.")
			return syscall.ENOENT
		}
		if m.last {
			return m.err
		}
		for _, row := range m.rows {
			row.write(f, table)
		}
		total.count += m.count
		total.size += m.size
		total.used += m.used
		// That of the last image counts.
		if total.err = m.err; m.err != nil {
			printSteps(m.err, c.stderr)
			if !m.skipped {
				break
			}
		}
	}
	if f != nil {
		f.Close()
		if s.Image == "" {
			f.Uint("total_provisioned_size", total.size)
			f.Uint("total_used_size", total.used)
		}
		f.Close()
		return errors.Join(total.err, f.Flush(c.stdout))
	}
	if total.count > 1 {
		table.Row("<TOTAL>", output.Size(total.size), output.Size(total.used))
	}
	if table.Len() == 0 && total.err == nil {
		return nil
	}
	return errors.Join(total.err, table.Flush(c.stdout))
}

func (u used) write(f output.Formatter, table *output.Table) {
	if f == nil {
		table.Row(spec.Spec{Image: u.name, Snap: u.snap}.String(), output.Size(u.size), output.Size(u.used))
		return
	}
	f.OpenObject("image")
	f.String("name", u.name)
	f.String("id", u.id)
	if u.snap != "" {
		f.String("snapshot", u.snap)
		f.Uint("snapshot_id", u.snapID)
	}
	f.Uint("provisioned_size", u.size)
	f.Uint("used_size", u.used)
	f.Close()
}

// measure measures an image with its snapshots, or the snapshots up to that of
// s. Each takes up what it has more than the one before it.
func (m *measured) measure(c *call, done *closing, pool *rados.IOContext, entry librbd.Entry, s spec.Spec) error {
	name, id := entry.Name, entry.ID
	image, err := rbd.OpenImageReadOnly(pool, name, rbd.NoSnapshot)
	if err != nil {
		m.skipped = true
		if errno.Code(err) == syscall.ENOENT { // removed meanwhile
			return err
		}
		return errno.Wrap(err, "error opening "+name)
	}
	defer done.add(image)
	features, err := image.GetFeatures()
	if err != nil {
		return errno.Wrap(err, "failed to retrieve image features")
	}
	if features&rbd.FeatureFastDiff == 0 {
		fmt.Fprintf(&m.warnings, "warning: fast-diff map is not enabled for %s. operation may be slow.\n", name)
	}
	size, err := image.GetSize()
	if err != nil {
		return err
	}
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == rbd.SnapNamespaceTypeUser })
	if err != nil {
		m.skipped = true
		return errno.Wrap(err, "error opening "+name+" snapshots")
	}
	from := c.String("from-snap")
	first := slices.IndexFunc(snaps, func(i rbd.SnapInfo) bool { return i.Name == from })
	last := slices.IndexFunc(snaps, func(i rbd.SnapInfo) bool { return i.Name == s.Snap })
	m.hasSnap = last >= 0
	switch {
	case s.Image != "" && s.Snap != "" && last < 0:
		return nil // there is nothing to say of it
	case from != "" && first < 0:
		fmt.Fprintln(&m.warnings, "specified snapshot is not found.")
		m.last = true
		return syscall.ENOENT
	case last >= 0 && last < first:
		m.last = true
		return syscall.EINVAL
	case last >= 0 && last == first:
		m.last = true
		return nil
	}
	if last >= 0 {
		snaps = snaps[:last+1]
	}
	snaps = snaps[first+1:]
	merge, exact := c.Bool("merge-snapshots"), c.Bool("exact")
	for _, snap := range snaps {
		at, err := rbd.OpenImageReadOnly(pool, name, snap.Name)
		if err != nil {
			return errno.Wrap(err, "error opening snapshot "+name+"@"+snap.Name)
		}
		taken, err := m.taken(at, name+"@"+snap.Name, from, snap.Size, exact)
		done.add(at)
		if err != nil {
			return err
		}
		from = snap.Name
		m.count++
		m.used += taken
		if s.Snap != "" {
			m.size += snap.Size
		}
		if !merge {
			m.rows = append(m.rows, used{name: name, id: id, snap: snap.Name, snapID: snap.Id, size: snap.Size, used: taken})
		}
	}
	if s.Snap != "" {
		return nil
	}
	taken, err := m.taken(image, name, from, size, exact)
	if err != nil {
		return err
	}
	m.count++
	m.used += taken
	m.size = size
	if merge {
		taken = m.used
	}
	m.rows = append(m.rows, used{name: name, id: id, size: size, used: taken})
	return nil
}

// closing closes images some time after they were used, and the last ones not at
// all, as the process ends: one time in a hundred librbd crashes when it frees an
// image that it has just compared.
type closing struct {
	mu     sync.Mutex
	images []*rbd.Image
}

func (l *closing) add(image *rbd.Image) {
	const kept = 16 // a megabyte or less each
	l.mu.Lock()
	l.images = append(l.images, image)
	var first *rbd.Image
	if len(l.images) > kept {
		first, l.images = l.images[0], l.images[1:]
	}
	l.mu.Unlock()
	if first != nil {
		_ = first.Close() // it was only read
	}
}

// taken is what an image takes up that is not in the snapshot from.
func (m *measured) taken(image *rbd.Image, what, from string, size uint64, exact bool) (taken uint64, err error) {
	flags, err := librbd.Flags(image)
	if err != nil {
		return 0, errno.Wrap(err, "failed to retrieve image flags")
	}
	if flags&librbd.FlagFastDiffInvalid != 0 {
		fmt.Fprintf(&m.warnings, "warning: fast-diff map is invalid for %s. operation may be slow.\n", what)
	}
	err = image.DiffIterate(rbd.DiffIterateConfig{
		SnapName: from, Length: size, IncludeParent: rbd.ExcludeParent, WholeObject: wholeObjects(!exact, size),
		Callback: func(_, length uint64, exists int, _ any) int {
			if exists != 0 {
				taken += length
			}
			return 0
		},
	})
	return taken, errno.Wrap(err, "failed to iterate diffs")
}
