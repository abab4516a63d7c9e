package cli

import (
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var namespaceCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"namespace", "create"},
			Operands: []args.Operand{poolSpec},
			Options:  poolOptions,
			Short:    "Create an RBD image namespace.",
		},
		run: func(c *call) error {
			return withNamespace(c, func(pool *rados.IOContext, name string) error {
				return errno.Wrap(rbd.NamespaceCreate(pool, name), "failed to created namespace")
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"namespace", "list"},
			Aliases:  [][]string{{"namespace", "ls"}},
			Operands: []args.Operand{poolNameOperand},
			Options:  []args.Option{poolOption, formatOption, prettyOption},
			Short:    "List RBD image namespaces.",
		},
		run: namespaceList,
	},
	{
		Command: args.Command{
			Path:     []string{"namespace", "remove"},
			Aliases:  [][]string{{"namespace", "rm"}},
			Operands: []args.Operand{poolSpec},
			Options:  poolOptions,
			Short:    "Remove an RBD image namespace.",
		},
		run: func(c *call) error {
			return withNamespace(c, func(pool *rados.IOContext, name string) error {
				err := rbd.NamespaceRemove(pool, name)
				switch errno.Code(err) {
				case syscall.EBUSY:
					return errno.Errorf(syscall.EBUSY, "namespace contains images which must be deleted first.")
				case syscall.ENOENT:
					return errno.Errorf(syscall.ENOENT, "namespace does not exist.")
				}
				return errno.Wrap(err, "failed to remove namespace")
			})
		},
	},
}

// withNamespace does something to the namespace that a line names.
func withNamespace(c *call, do func(*rados.IOContext, string) error) error {
	s, err := c.pool(spec.New)
	if err != nil {
		return err
	}
	if s.Namespace == "" {
		return errno.Errorf(syscall.EINVAL, "namespace name was not specified")
	}
	pool, err := c.cluster.Pool(s.Pool, "")
	if err != nil {
		return err
	}
	return do(pool, s.Namespace)
}

func namespaceList(c *call) error {
	name, err := c.onlyPool()
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(name, "")
	if err != nil {
		return err
	}
	names, err := rbd.NamespaceList(pool)
	if err != nil {
		return errno.Wrap(err, "failed to list namespaces")
	}
	slices.Sort(names)
	if f != nil {
		f.OpenArray("namespaces")
		for _, name := range names {
			f.OpenObject("namespace")
			f.String("name", name)
			f.Close()
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	if len(names) == 0 {
		return nil
	}
	table := output.NewTable(output.Column{Heading: "NAME"})
	for _, name := range names {
		table.Row(name)
	}
	return table.Flush(c.stdout)
}
