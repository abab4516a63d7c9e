package cli

import (
	"encoding/json"
	"errors"
	"strconv"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var diffCommand = &command{
	Command: args.Command{
		Path:     []string{"diff"},
		Operands: []args.Operand{imageOrSnapSpec},
		Options: []args.Option{
			poolOption, namespaceOption, imageOption, snapOption,
			{Name: "from-snap", Arg: "arg", Help: "snapshot starting point"},
			{Name: "whole-object", Help: "compare whole object"},
			formatOption, prettyOption,
		},
		Short: "Print extents that differ since a previous snap, or image creation.",
	},
	run: func(c *call) error {
		s, err := c.spec(spec.Form{Snap: spec.MaySnap})
		if err != nil {
			return err
		}
		f, err := c.formatter()
		if err != nil {
			return err
		}
		image, err := c.open(s, true)
		if err != nil {
			return err
		}
		defer image.Close()
		if err := checkComparable(c, image); err != nil {
			return errors.Join(err, errno.Wrap(err, "diff error"))
		}
		return errno.Wrap(diff(c, image, f), "diff error")
	},
}

// checkComparable is an error for an image, or a clone of one, that is being imported
// by a migration: librbd ends the process where it compares one with its source.
func checkComparable(c *call, image *rbd.Image) error {
	features, err := image.GetFeatures()
	if err != nil {
		return err
	}
	overlap, err := image.GetOverlap()
	if err != nil {
		return err
	}
	if features&rbd.FeatureMigrating != 0 && overlap > 0 {
		text, err := librbd.MigrationSource(image)
		var source struct {
			Type string `json:"type"`
		}
		if err == nil && json.Unmarshal([]byte(text), &source) == nil && source.Type != "native" {
			return errno.Errorf(syscall.EOPNOTSUPP, "an image that is being imported cannot be compared: run \"rbd migration execute\" first")
		}
	}
	parent, err := parentOf(image)
	if err != nil || parent == nil {
		return err
	}
	_, image, err = c.openImage(spec.Spec{Pool: parent.Image.PoolName, Namespace: parent.Image.PoolNamespace}, parent.Image.ImageID, true)
	if err != nil {
		return nil //nolint:nilerr // what there is to say of it, librbd does
	}
	defer image.Close()
	return checkComparable(c, image)
}

func diff(c *call, image *rbd.Image, f output.Formatter) error {
	size, err := image.GetSize()
	if err != nil {
		return err
	}
	table := output.NewTable(output.Column{Heading: "Offset"}, output.Column{Heading: "Length"}, output.Column{Heading: "Type"})
	if f != nil {
		f.OpenArray("extents")
	}
	if err := image.DiffIterate(rbd.DiffIterateConfig{
		SnapName: c.String("from-snap"), Length: size, IncludeParent: rbd.IncludeParent, WholeObject: wholeObjects(c.Bool("whole-object"), size),
		Callback: func(offset, length uint64, exists int, _ any) int {
			if f != nil {
				f.OpenObject("extent")
				f.Uint("offset", offset)
				f.Uint("length", length)
				f.String("exists", strconv.FormatBool(exists != 0))
				f.Close()
				return 0
			}
			kind := "zero"
			if exists != 0 {
				kind = "data"
			}
			table.Row(strconv.FormatUint(offset, 10), strconv.FormatUint(length, 10), kind)
			return 0
		},
	}); err != nil {
		return err
	}
	if f != nil {
		f.Close()
		return f.Flush(c.stdout)
	}
	if table.Len() == 0 {
		return nil
	}
	return table.Flush(c.stdout)
}

// wholeObjects says whether a diff of an image of so many bytes is to be one of
// whole objects. Of an image without any librbd of Ceph 16 ends the process
// when it is to look in the map of objects.
func wholeObjects(wanted bool, size uint64) rbd.DiffWholeObject {
	if wanted && size > 0 {
		return rbd.EnableWholeObject
	}
	return rbd.DisableWholeObject
}
