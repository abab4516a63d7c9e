package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/device"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// deviceSnapID is for rbd-nbd; the kernel goes by names.
var deviceSnapID = since(18, args.Option{Name: "snap-id", Arg: "arg", Help: "snapshot id", Check: isA(unsigned)})

var (
	deviceAttachCommand = &command{
		Command: args.Command{
			Path:     []string{"device", "attach"},
			Operands: []args.Operand{imageOrSnapSpec},
			Options: slices.Concat([]args.Option{
				device.Type, poolOption, namespaceOption, imageOption, snapOption,
				{Name: "device", Arg: "arg", Required: true, Help: "specify device path"},
				{Name: "show-cookie", Help: "show device cookie"},
				{Name: "cookie", Arg: "arg", Help: "specify device cookie"},
				{Name: "read-only", Help: "attach read-only"},
				{Name: "force", Help: "force attach"},
				{Name: "exclusive", Help: "disable automatic exclusive lock transitions"},
				{Name: "quiesce", Help: "use quiesce hooks"},
				{Name: "quiesce-hook", Arg: "arg", Help: "quiesce hook path"},
			}, deviceSnapID, []args.Option{device.Options}),
			Short: "Attach image to device.",
		},
		run: byType(nbdAttach, notByKernel("attach")),
	}
	deviceDetachCommand = &command{
		Command: args.Command{
			Path: []string{"device", "detach"},
			Operands: []args.Operand{{
				Name: "image-or-snap-or-device-spec",
				Help: "image, snapshot, or device specification\n[<pool-name>/]<image-name>[@<snap-name>] or <device-path>",
			}},
			Options: slices.Concat([]args.Option{device.Type, poolOption}, since(18, namespaceOption),
				[]args.Option{imageOption, snapOption}, deviceSnapID, []args.Option{device.Options}),
			Short: "Detach image from device.",
		},
		run: byType(nbdDetach, notByKernel("detach")),
	}
)

// The commands of old for devices of rbd-nbd.
var (
	nbdListCommand = &command{
		Command: args.Command{
			Path: []string{"nbd", "list"}, Aliases: [][]string{{"nbd", "ls"}}, Hidden: true,
			Options: []args.Option{formatOption, prettyOption},
			Short:   "List the nbd devices already used.",
		},
		run: deprecated("list", nbdList),
	}
	nbdMapCommand = &command{
		Command: args.Command{
			Path: []string{"nbd", "map"}, Operands: []args.Operand{imageOrSnapSpec}, Hidden: true,
			Options: []args.Option{
				poolOption, namespaceOption, imageOption, snapOption,
				{Name: "read-only", Help: "map read-only"},
				{Name: "exclusive", Help: "forbid writes by other clients"},
				{Name: "device", Arg: "arg", Help: "specify nbd device"},
				{Name: "nbds_max", Arg: "arg", Help: "override module param nbds_max"},
				{Name: "max_part", Arg: "arg", Help: "override module param max_part"},
				{Name: "timeout", Arg: "arg", Help: "set nbd request timeout (seconds)"},
			},
			Short: "Map image to a nbd device.",
		},
		run: deprecated("map", nbdMap),
	}
	nbdUnmapCommand = &command{
		Command: args.Command{
			Path: []string{"nbd", "unmap"}, Hidden: true,
			Operands: []args.Operand{{
				Name: "image-or-snap-or-device-spec",
				Help: "image, snapshot, or device specification\n[<pool-name>/]<image-name>[@<snap-name>] or <device-path>",
			}},
			Options: []args.Option{poolOption, imageOption, snapOption},
			Short:   "Unmap a nbd device.",
		},
		run: deprecated("unmap", nbdUnmap),
	}
)

// deprecated runs a command of old after a word on the one of today.
func deprecated(verb string, run func(*call) error) func(*call) error {
	return func(c *call) error {
		fmt.Fprintf(c.stderr, "rbd: 'nbd %s' command is deprecated, use 'device %s -t nbd' instead\n", verb, verb)
		return run(c)
	}
}

// byType runs one of two by --device-type: for devices that rbd-nbd serves, or
// the kernel. Kinds that there are not are refused.
func byType(nbd, kernel func(*call) error) func(*call) error {
	return func(c *call) error {
		if err := device.CheckType(c.line); err != nil {
			return err
		}
		if c.String("device-type") == "nbd" {
			return nbd(c)
		}
		return kernel(c)
	}
}

// notByKernel is what the kernel's devices cannot do.
func notByKernel(verb string) func(*call) error {
	return func(*call) error { return errno.Errorf(syscall.EOPNOTSUPP, "krbd does not support %s", verb) }
}

func nbdAttach(c *call) error {
	image, err := c.nbdImage()
	if err != nil {
		return err
	}
	if !c.IsSet("device") {
		return errno.Errorf(syscall.EINVAL, "device was not specified")
	}
	if !c.IsSet("cookie") && !c.Bool("force") {
		invalid := func(line string) error { return errno.Errorf(syscall.EINVAL, "%s", line) }
		return errors.Join(
			invalid("could not validate attach request"),
			invalid("mismatching the image and the device may lead to data corruption"),
			invalid("must specify --cookie <arg> or --force to proceed"),
		)
	}
	return c.runNBD("attach", append([]string{image, "--device", c.String("device")}, c.nbdOptions()...))
}

func nbdDetach(c *call) error {
	what, err := c.nbdTarget()
	if err != nil {
		return err
	}
	return c.runNBD("detach", slices.Concat([]string{what}, c.snapIDWords(), c.extraOptions()))
}

func nbdMap(c *call) error {
	image, err := c.nbdImage()
	if err != nil {
		return err
	}
	return c.runNBD("map", append([]string{image}, c.nbdOptions()...))
}

func nbdUnmap(c *call) error {
	what, err := c.nbdTarget()
	if err != nil {
		return err
	}
	return c.runNBD("unmap", slices.Concat([]string{what}, c.snapIDWords(), c.extraOptions()))
}

func nbdList(c *call) error {
	var words []string
	if c.IsSet("format") {
		words = append(words, "--format", c.String("format"))
	}
	if c.Bool("pretty-format") {
		words = append(words, "--pretty-format")
	}
	return c.runNBD("list-mapped", words)
}

// nbdImage is the image of the line with its pool, as a spec.
func (c *call) nbdImage() (string, error) {
	s, err := c.spec(spec.Form{Snap: spec.MaySnap})
	if err != nil {
		return "", err
	}
	if s.Pool == "" {
		// The monitors may say which pool is the default one.
		if _, err := c.cluster.Connect(); err != nil {
			return "", err
		}
		s.Pool = c.cluster.Config("rbd_default_pool")
	}
	return s.String(), nil
}

// nbdTarget is a device, or an image that is mapped to one.
func (c *call) nbdTarget() (string, error) {
	if word := c.Args().Get(c.next); strings.HasPrefix(word, "/dev/") {
		return word, nil
	}
	return c.nbdImage()
}

// nbdOptions are the options of map and attach as rbd-nbd takes them.
func (c *call) nbdOptions() []string {
	var words []string
	for _, name := range []string{"show-cookie", "quiesce", "read-only", "exclusive"} {
		if c.Bool(name) {
			words = append(words, "--"+name)
		}
	}
	for _, name := range []string{"cookie", "quiesce-hook"} {
		if c.IsSet(name) {
			words = append(words, "--"+name, c.String(name))
		}
	}
	words = append(words, c.snapIDWords()...)
	for _, name := range []string{"nbds_max", "max_part", "timeout"} {
		if c.IsSet(name) {
			words = append(words, "--"+name+"="+c.String(name))
		}
	}
	return append(words, c.extraOptions()...)
}

func (c *call) snapIDWords() []string {
	if !c.IsSet("snap-id") {
		return nil
	}
	return []string{"--snap-id", strconv.FormatUint(c.number("snap-id", unsigned), 10)}
}

// extraOptions are what -o says, for rbd-nbd.
func (c *call) extraOptions() []string {
	var words []string
	for _, list := range c.StringSlice("options") {
		for option := range strings.SplitSeq(list, ",") {
			words = append(words, "--"+option)
		}
	}
	return words
}

// runNBD runs rbd-nbd. Command and image come first on its line: that is how
// kubelet knows the process that serves a device, and so do people. A key goes
// by a file in memory, as the process lives as long as the device.
func (c *call) runNBD(verb string, words []string) error {
	program, err := nbdProgram()
	if err != nil {
		return &errno.Error{Code: syscall.EINVAL, Line: "failed to run rbd-nbd: " + err.Error(), Err: err}
	}
	c.stdout.Flush()
	cmd := &exec.Cmd{Path: program, Args: append([]string{"rbd-nbd", verb}, words...), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	options, key := c.cluster.Words()
	if key != "" {
		f, err := keyFile(key)
		if err != nil {
			return &errno.Error{Code: syscall.EINVAL, Line: "failed to run rbd-nbd: " + err.Error(), Err: err}
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		options = append(options, "--keyfile=/proc/self/fd/3")
	}
	cmd.Args = append(cmd.Args, options...)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		how := exit.String() // of a signal
		if exit.Exited() {
			how = fmt.Sprintf("exit status: %d", exit.ExitCode())
		}
		return &errno.Error{Code: syscall.EINVAL, Line: "rbd-nbd failed with error: " + program + ": " + how, Err: err}
	case err != nil:
		return &errno.Error{Code: syscall.EINVAL, Line: "failed to run rbd-nbd: " + err.Error(), Err: err}
	}
	return nil
}

// nbdProgram is the rbd-nbd beside this program, or that of $PATH.
func nbdProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		if _, err := os.Stat(self + "-nbd"); err == nil {
			return self + "-nbd", nil
		}
	}
	return exec.LookPath("rbd-nbd")
}

// keyFile is a file in memory that holds a key.
func keyFile(key string) (*os.File, error) {
	fd, err := unix.MemfdCreate("key", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "key")
	if _, err := fmt.Fprint(f, key); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
