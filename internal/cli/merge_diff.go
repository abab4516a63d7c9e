package cli

import (
	"errors"
	"os"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var mergeDiffCommand = &command{
	Command: args.Command{
		Path: []string{"merge-diff"},
		Operands: []args.Operand{
			{Name: "diff1-path", Help: "path to first diff (or '-' for stdin)"},
			{Name: "diff2-path", Help: "path to second diff"},
			{Name: "path-name", Help: "path to merged diff (or '-' for stdout)"},
		},
		Options: []args.Option{
			{Name: "path", Arg: "arg", Help: "path to merged diff (or '-' for stdout)"},
			noProgress,
		},
		Short: "Merge two diff exports together.",
	},
	run: mergeDiff,
}

func mergeDiff(c *call) error {
	first, second := c.operand(), c.operand()
	switch {
	case first == "":
		return errno.Errorf(syscall.EINVAL, "first diff was not specified")
	case second == "":
		return errno.Errorf(syscall.EINVAL, "second diff was not specified")
	}
	path, err := c.path()
	if err != nil {
		return err
	}
	err = c.withSteps("Merging image diff", 0, nil, func(p librbd.Progress) error { return c.merge(first, second, path, p) })
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Line: "merge-diff error", Err: err}
	}
	return nil
}

func (c *call) merge(first, second, path string, progress librbd.Progress) error {
	a := os.Stdin
	if first != "-" {
		f, err := c.openFile(first)
		if err != nil {
			return err
		}
		defer f.Close()
		a = f
	}
	b, err := c.openFile(second)
	if err != nil {
		return err
	}
	defer b.Close()
	out, err := c.create(path)
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Line: "error create " + path, Err: err}
	}
	err = streamError(stream.Merge(out, a, b, progress))
	if out != os.Stdout {
		err = errors.Join(err, out.Close())
		if err != nil {
			_ = os.Remove(path)
		}
	}
	return err
}
