package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var (
	metaKey   = args.Operand{Name: "key", Help: "image meta key"}
	metaValue = args.Operand{Name: "value", Help: "image meta value"}
)

var metaCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"image-meta", "get"},
			Operands: []args.Operand{imageSpec, metaKey},
			Options:  imageOptions,
			Short:    "Image metadata get the value associated with the key.",
		},
		run: func(c *call) error {
			return withMeta(c, "getting metadata failed", func(image *rbd.Image, key string) error {
				value, err := image.GetMetadata(key)
				if err != nil {
					return bareError(err, "failed to get metadata "+key+" of image ")
				}
				fmt.Fprintln(c.stdout, value)
				return nil
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"image-meta", "list"},
			Aliases:  [][]string{{"image-meta", "ls"}},
			Operands: []args.Operand{imageSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, formatOption, prettyOption},
			Short:    "Image metadata list keys with values.",
		},
		run: metaList,
	},
	{
		Command: args.Command{
			Path:     []string{"image-meta", "remove"},
			Aliases:  [][]string{{"image-meta", "rm"}},
			Operands: []args.Operand{imageSpec, metaKey},
			Options:  imageOptions,
			Short:    "Image metadata remove the key and value associated.",
		},
		run: func(c *call) error {
			return withMeta(c, "removing metadata failed", func(image *rbd.Image, key string) error {
				err := image.RemoveMetadata(key)
				switch {
				case err == nil:
					return nil
				case errno.Code(err) == syscall.ENOENT:
					return errno.Wrap(err, "no existing metadata key "+key+" of image ")
				}
				return bareError(err, "failed to remove metadata "+key+" of image ")
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"image-meta", "set"},
			Operands: []args.Operand{imageSpec, metaKey, metaValue},
			Options:  imageOptions,
			Short:    "Image metadata set key with value.",
		},
		run: func(c *call) error {
			return withMeta(c, "setting metadata failed", func(image *rbd.Image, key string) error {
				return bareError(image.SetMetadata(key, c.Args().Get(c.next)), "failed to set metadata "+key+" of image ")
			})
		},
	},
}

// withMeta does something to a key of an image.
func withMeta(c *call, failed string, do func(*rbd.Image, string) error) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	key := c.operand()
	if key == "" {
		return errno.Errorf(syscall.EINVAL, "metadata key was not specified")
	}
	// The key is the last operand of get and remove; set has one more.
	if len(c.line.Command.Operands) > 2 && c.Args().Get(c.next) == "" {
		return errno.Errorf(syscall.EINVAL, "metadata value was not specified")
	}
	return c.change(s, func(image *rbd.Image) error {
		if err := do(image, key); err != nil {
			return errors.Join(err, errno.Wrap(err, failed))
		}
		return nil
	})
}

func metaList(c *call) error {
	f, image, err := c.read()
	if err != nil {
		return err
	}
	pairs, err := image.ListMetadata()
	if err != nil {
		return errors.Join(bareError(err, "failed to list metadata of image "), errno.Wrap(err, "listing metadata failed"))
	}
	keys := slices.Sorted(maps.Keys(pairs))
	if f != nil && len(keys) == 0 {
		return nil
	}
	if f != nil {
		f.OpenObject("metadatas")
		for _, key := range keys {
			f.String(key, pairs[key])
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	switch len(keys) {
	case 0:
		fmt.Fprintln(c.stdout, "There are 0 metadata on this image.")
		return nil
	case 1:
		fmt.Fprintln(c.stdout, "There is 1 metadatum on this image:")
	default:
		fmt.Fprintf(c.stdout, "There are %d metadata on this image:\n", len(keys))
	}
	fmt.Fprintln(c.stdout)
	table := output.NewTable(output.Column{Heading: "Key"}, output.Column{Heading: "Value"})
	for _, key := range keys {
		table.Row(key, pairs[key])
	}
	return table.Flush(c.stdout)
}
