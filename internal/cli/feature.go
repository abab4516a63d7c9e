package cli

import (
	"errors"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var (
	featureOperand = args.Operand{Name: "features", Help: "image features\n[exclusive-lock, object-map, journaling]", Repeat: true}
	featureImage   = []args.Option{poolOption, namespaceOption, imageOption}
)

var featureCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"feature", "disable"},
			Operands: []args.Operand{imageSpec, featureOperand},
			Options:  featureImage,
			Short:    "Disable the specified image feature.",
		},
		run: func(c *call) error { return updateFeatures(c, false) },
	},
	{
		Command: args.Command{
			Path:     []string{"feature", "enable"},
			Operands: []args.Operand{imageSpec, featureOperand},
			Options:  append(featureImage[:len(featureImage):len(featureImage)], journalOptions...),
			Short:    "Enable the specified image feature.",
		},
		run: func(c *call) error { return updateFeatures(c, true) },
	},
}

func updateFeatures(c *call, enable bool) (err error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	if enable {
		if err := c.journalOptions(nil); err != nil {
			return err
		}
	}
	names := c.Args().Slice()[c.next:]
	if len(names) == 0 {
		return errno.Errorf(syscall.EINVAL, "at least one feature name must be specified")
	}
	var set uint64
	for _, name := range names {
		bits, err := features(name)
		if err != nil {
			// The same words as for an option, which it has no name of.
			return errno.Errorf(syscall.EPERM, "the argument for option is invalid")
		}
		set |= bits
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	return errno.Wrap(image.UpdateFeatures(set, enable), "failed to update image features")
}
