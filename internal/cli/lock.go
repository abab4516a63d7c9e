package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var lockID = args.Operand{Name: "lock-id", Help: "unique lock id"}

var lockCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"lock", "add"},
			Operands: []args.Operand{imageSpec, lockID},
			Options: []args.Option{
				poolOption, namespaceOption, imageOption,
				{Name: "shared", Arg: "arg", Help: "shared lock tag"},
			},
			Short: "Take a lock on an image.",
		},
		run: lockAdd,
	},
	{
		Command: args.Command{
			Path:     []string{"lock", "list"},
			Aliases:  [][]string{{"lock", "ls"}},
			Operands: []args.Operand{imageSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, formatOption, prettyOption},
			Short:    "Show locks held on an image.",
		},
		run: lockList,
	},
	{
		Command: args.Command{
			Path:     []string{"lock", "remove"},
			Aliases:  [][]string{{"lock", "rm"}},
			Operands: []args.Operand{imageSpec, lockID, {Name: "locker", Help: "locker client"}},
			Options:  []args.Option{poolOption, namespaceOption, imageOption},
			Short:    "Release a lock on an image.",
		},
		run: lockRemove,
	},
}

func lockAdd(c *call) (err error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	id := c.operand()
	if id == "" {
		return errno.Errorf(syscall.EINVAL, "lock id was not specified")
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	tag := c.String("shared")
	if tag == "" {
		err = image.LockExclusive(id)
	} else {
		err = image.LockShared(id, tag)
	}
	switch code := errno.Code(err); {
	case err == nil:
		return nil
	case code != syscall.EBUSY && code != syscall.EEXIST:
		return errno.Wrap(err, "taking lock failed")
	case tag == "":
		return errno.Errorf(code, "lock is already held by someone else")
	default:
		return errno.Errorf(code, "lock is already held by someone else with a different tag")
	}
}

func lockList(c *call) error {
	f, image, err := c.read()
	if err != nil {
		return err
	}
	tag, lockers, err := image.ListLockers()
	if err != nil {
		return errno.Wrap(err, "listing locks failed")
	}
	if f != nil {
		f.OpenArray("locks")
		for _, l := range lockers {
			f.OpenObject("lock")
			f.String("id", l.Cookie)
			f.String("locker", l.Client)
			f.String("address", l.Addr)
			f.Close()
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	if len(lockers) == 0 {
		return nil
	}
	exclusive, err := librbd.LockIsExclusive(image)
	if err != nil {
		return errno.Wrap(err, "listing locks failed")
	}
	kind := "shared"
	if exclusive {
		kind = "exclusive"
	}
	if len(lockers) == 1 {
		fmt.Fprintf(c.stdout, "There is 1 %s lock on this image.\n", kind)
	} else {
		fmt.Fprintf(c.stdout, "There are %d %s locks on this image.\n", len(lockers), kind)
	}
	if !exclusive {
		fmt.Fprintln(c.stdout, "Lock tag:", strings.Trim(tag, "\x00"))
	}
	table := output.NewTable(output.Column{Heading: "Locker"}, output.Column{Heading: "ID"}, output.Column{Heading: "Address"})
	for _, l := range lockers {
		table.Row(l.Client, l.Cookie, l.Addr)
	}
	return table.Flush(c.stdout)
}

func lockRemove(c *call) (err error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	id := c.operand()
	if id == "" {
		return errno.Errorf(syscall.EINVAL, "lock id was not specified")
	}
	locker := c.operand()
	if locker == "" {
		return errno.Errorf(syscall.EINVAL, "locker was not specified")
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	return errno.Wrap(image.BreakLock(locker, id), "releasing lock failed")
}
