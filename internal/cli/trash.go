package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var trashCommands = slices.Concat([]*command{
	{
		Command: args.Command{
			Path:     []string{"trash", "list"},
			Aliases:  [][]string{{"trash", "ls"}},
			Operands: []args.Operand{poolSpec},
			Options: slices.Concat(poolOptions, []args.Option{
				{Name: "all", Short: "a", Help: "list images from all sources"},
				{Name: "long", Short: "l", Help: "long listing format"},
				formatOption, prettyOption,
			}),
			Short: "List trash images.",
		},
		run: trashList,
	},
	{
		Command: args.Command{
			Path:     []string{"trash", "move"},
			Aliases:  [][]string{{"trash", "mv"}},
			Operands: []args.Operand{imageSpec},
			Options: slices.Concat(imageOptions, []args.Option{
				{Name: "expires-at", Arg: "arg (=now)", Help: "set the expiration time of an image so it can be\npurged when it is stale"},
			}),
			Short: "Move an image to the trash.",
		},
		run: trashMove,
	},
	{
		Command: args.Command{
			Path:     []string{"trash", "purge"},
			Operands: []args.Operand{poolSpec},
			Options: slices.Concat(poolOptions, []args.Option{
				noProgress,
				{Name: "expired-before", Arg: "date", Help: "purges images that expired before the given date"},
				{
					Name: "threshold", Arg: "arg", Check: isPart,
					Help: "purges images until the current pool data usage is\nreduced to X%, value range: 0.0-1.0",
				},
			}),
			Short: "Remove all expired images from trash.",
		},
		run: trashPurge,
	},
	{
		Command: args.Command{
			Path:     []string{"trash", "remove"},
			Aliases:  [][]string{{"trash", "rm"}},
			Operands: []args.Operand{{Name: "image-id", Help: "image id\n(example: [<pool-name>/[<namespace>/]]<image-id>)"}},
			Options: slices.Concat(poolOptions, []args.Option{
				imageIDOption, noProgress, {Name: "force", Help: "force remove of non-expired delayed images"},
			}),
			Short: "Remove an image from trash.",
		},
		run: trashRemove,
	},
	{
		Command: args.Command{
			Path:     []string{"trash", "restore"},
			Operands: []args.Operand{{Name: "image-id", Help: "image id\n(example: [<pool-name>/]<image-id>)"}},
			Options:  slices.Concat(poolOptions, []args.Option{imageIDOption, imageOption}),
			Short:    "Restore an image from trash.",
		},
		run: trashRestore,
	},
}, scheduleGroup([]string{"trash", "purge", "schedule"}, "trash purge schedule", poolOptions, printPurges))

// isPart is a check for a number with a point, less what Go alone reads as one.
func isPart(text string) error {
	if _, err := strconv.ParseFloat(text, 32); err != nil || strings.ContainsAny(text, "_xX") {
		return args.ErrValue
	}
	return nil
}

func trashMove(c *call) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	pool, err := c.fullPool(s)
	if err != nil {
		return err
	}
	now := time.Now()
	at, protect := now, time.Duration(0)
	if c.IsSet("expires-at") {
		if at, err = date(c.String("expires-at"), now); err != nil {
			return err
		}
		protect = at.Sub(now)
	}
	if librbd.Release >= 18 && c.IsSet("expires-at") && c.String("expires-at") != "now" {
		fmt.Fprintf(c.stdout, "rbd: image %s will expire at %s\n", s.Image, at.Local().Format("2006-01-02T15:04:05.000000-0700"))
	}
	err = librbd.MoveToTrash(pool, s.Image, protect)
	if errno.Code(err) == syscall.EMLINK && librbd.Release >= 20 {
		return inGroup("")
	}
	return errno.Wrap(err, "deferred delete error")
}

// trashSource is what a list calls who moved an image to the trash.
func trashSource(source int) string {
	switch source {
	case librbd.TrashUser:
		return "USER"
	case librbd.TrashMirroring:
		return "MIRRORING"
	case librbd.TrashMigration:
		return "MIGRATION"
	case librbd.TrashRemoving:
		return "REMOVING"
	case librbd.TrashUserParent:
		return "USER_PARENT"
	}
	return "UNKNOWN"
}

func trashList(c *call) error {
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
	images, err := librbd.Trash(pool)
	if err == nil {
		err = printTrash(c, pool, images, f)
	}
	return errno.Wrap(err, "trash list")
}

func printTrash(c *call, pool *rados.IOContext, images []librbd.Trashed, f output.Formatter) error {
	long := c.Bool("long")
	var table *output.Table
	if long {
		table = output.NewTable(
			output.Column{Heading: "ID"}, output.Column{Heading: "NAME"}, output.Column{Heading: "SOURCE"},
			output.Column{Heading: "DELETED_AT"}, output.Column{Heading: "STATUS"}, output.Column{Heading: "PARENT"},
		)
	}
	if f != nil {
		f.OpenArray("trash")
	}
	shown := 0
	var gone error // of the last one
	for _, i := range images {
		if !c.Bool("all") && i.Source != librbd.TrashUser && i.Source != librbd.TrashUserParent {
			continue
		}
		var parent *rbd.ParentInfo
		if long {
			image, err := rbd.OpenImageByIdReadOnly(pool, i.ID, rbd.NoSnapshot)
			if errno.Code(err) == syscall.ENOENT {
				gone = err // removed meanwhile
				continue
			}
			gone = nil
			if err != nil {
				return errno.Wrap(err, "error opening "+i.Name)
			}
			parent, err = parentOf(image)
			if err = errors.Join(err, image.Close()); err != nil {
				return err
			}
		}
		shown++
		status := "expired at "
		if time.Now().Unix() < i.Protected {
			status = "protected until "
		}
		status += librbd.CTime(i.Protected)
		switch {
		case f != nil:
			f.OpenObject("image")
			f.String("id", i.ID)
			f.String("name", i.Name)
			if long {
				f.String("source", trashSource(i.Source))
				f.String("deleted_at", librbd.CTime(i.Deleted))
				f.String("status", status)
				if parent != nil {
					f.OpenObject("parent")
					f.String("pool", parent.Image.PoolName)
					f.String("pool_namespace", parent.Image.PoolNamespace)
					f.String("image", parent.Image.ImageName)
					f.String("snapshot", parent.Snap.SnapName)
					f.Close()
				}
			}
			f.Close()
		case long:
			spec := ""
			if parent != nil {
				spec = parentSpec(parent)
			}
			table.Row(i.ID, i.Name, trashSource(i.Source), librbd.CTime(i.Deleted), status, spec)
		default:
			fmt.Fprintf(c.stdout, "%s %s\n", i.ID, i.Name)
		}
	}
	if f != nil {
		f.Close()
		return cmp.Or(f.Flush(c.stdout), gone)
	}
	if long && (shown > 0 || gone != nil) {
		return cmp.Or(table.Flush(c.stdout), gone)
	}
	return nil
}

// printPurges prints when the trash of which pools will be purged next.
func printPurges(c *call, out []byte, refused error) error {
	var answer struct {
		Pools []struct {
			Time      string `json:"schedule_time"`
			ID        int64  `json:"pool_id"`
			Pool      string `json:"pool_name"`
			Namespace string `json:"namespace"`
		} `json:"scheduled"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return badStatus(refused, err)
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	if f == nil {
		table := output.NewTable(output.Column{Heading: "POOL"}, output.Column{Heading: "NAMESPACE"}, output.Column{Heading: "SCHEDULE TIME"})
		for _, p := range answer.Pools {
			table.Row(p.Pool, p.Namespace, p.Time)
		}
		return table.Flush(c.stdout)
	}
	f.OpenArray("scheduled")
	for _, p := range answer.Pools {
		f.OpenObject("item")
		f.String("schedule_time", p.Time)
		f.Int("pool_id", p.ID)
		f.String("pool_name", p.Pool)
		f.String("namespace", p.Namespace)
		f.Close()
	}
	f.Close()
	return f.Flush(c.stdout)
}

// trashed reads the spec of an image in the trash, whose id is in Image.
func (c *call) trashed() (spec.Spec, error) {
	s, err := c.specBy(spec.Form{Kind: "image id", Names: spec.New, Anywhere: true, Optional: true}, "pool", "namespace", "image-id", "")
	if err == nil && s.Image == "" {
		err = errno.Errorf(syscall.EINVAL, "image id was not specified")
	}
	return s, err
}

func trashRemove(c *call) error {
	s, err := c.trashed()
	if err != nil {
		return err
	}
	pool, err := c.fullPool(s)
	if err != nil {
		return err
	}
	return silent(c.withSteps("Removing image", 0, nil, func(p librbd.Progress) error {
		err := librbd.RemoveFromTrash(pool, s.Image, c.Bool("force"), p)
		if err == nil {
			return nil
		}
		code := errno.Code(err)
		bare := func(line string) error { return &errno.Error{Code: code, Bare: true, Line: line, Err: err} }
		switch code {
		case syscall.ENOTEMPTY:
			return errno.Errorf(code, "image has snapshots - these must be deleted with 'rbd snap purge' before the image can be removed.")
		case syscall.EUCLEAN:
			return errno.Errorf(code, "error: image not fully moved to trash.")
		case syscall.EBUSY:
			return errors.Join(errno.Errorf(code, "error: image still has watchers"), bare(stillWatched))
		case syscall.EMLINK:
			return bare("\nRemove the image from the group and try again.")
		case syscall.EPERM:
			return bare("\nDeferment time has not expired, please use --force if you really want to remove the image")
		}
		return errno.Wrap(err, "remove error")
	}))
}

func trashRestore(c *call) error {
	s, err := c.trashed()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	if err = rbd.TrashRestore(pool, s.Image, c.String("image")); err == nil {
		return nil
	}
	switch code := errno.Code(err); code {
	case syscall.ENOENT:
		return errno.Errorf(code, "error: image does not exist in trash")
	case syscall.EEXIST:
		return errno.Errorf(code, "error: an image with the same name already exists, try again with a different name")
	}
	return errno.Wrap(err, "restore error")
}

func trashPurge(c *call) error {
	s, err := c.pool(spec.Any)
	if err != nil {
		return err
	}
	pool, err := c.fullPool(s)
	if err != nil {
		return err
	}
	var before int64
	threshold := float32(-1)
	switch {
	case c.IsSet("threshold"):
		part, err := strconv.ParseFloat(c.String("threshold"), 32)
		if err != nil {
			return err
		}
		threshold = float32(part)
	case c.IsSet("expired-before"):
		at, err := date(c.String("expired-before"), time.Now())
		if err != nil {
			return err
		}
		before = at.Unix()
	}
	err = c.withProgress("Removing images", 0, func(p librbd.Progress) error { return librbd.PurgeTrash(pool, before, threshold, p) })
	if err == nil {
		return nil
	}
	switch code := errno.Code(err); code {
	case syscall.ENOTEMPTY, syscall.EBUSY, syscall.EMLINK, syscall.EUCLEAN:
		return errors.Join(
			errno.Errorf(code, "some expired images could not be removed"),
			&errno.Error{Code: code, Bare: true, Line: "Ensure that they are closed/unmapped, do not have snapshots " +
				"(including trashed snapshots with linked clones), are not in a group and were moved to the trash successfully."},
		)
	}
	return silent(err)
}
