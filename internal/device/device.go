// Package device holds the commands on mapped devices that ask the kernel and
// nothing else: unmap and list. Both the rbd command and the static launcher
// run them from here, so it links neither cgo nor a command-line library.
//
// It is not for what needs a cluster (map), nor for the other kinds of device
// (nbd): see Local.
package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// Type is the option that every command on devices has.
var Type = args.Option{
	Name: "device-type", Short: "t", Arg: "arg",
	Help:  "device type [ggate, krbd (default), nbd]",
	Check: oneOf("krbd", "nbd", "ggate"),
}

// Options is the option -o, which every command on devices but list has.
var Options = args.Option{
	Name: "options", Short: "o", Arg: "arg", Repeat: true,
	Help: "device specific options",
}

// The parts of a spec, as options of their own.
var (
	poolName      = args.Option{Name: "pool", Short: "p", Arg: "arg", Help: "pool name"}
	namespaceName = args.Option{Name: "namespace", Arg: "arg", Help: "namespace name"}
	imageName     = args.Option{Name: "image", Arg: "arg", Help: "image name"}
	snapName      = args.Option{Name: "snap", Arg: "arg", Help: "snapshot name"}
)

// Unmap is "device unmap".
var Unmap = &args.Command{
	Path:     []string{"device", "unmap"},
	Aliases:  [][]string{{"unmap"}},
	Short:    "Unmap a rbd device.",
	Operands: []args.Operand{{Name: "image-or-snap-or-device-spec", Help: "image, snapshot, or device specification\n[<pool-name>/[<namespace>/]]<image-name>[@<snap-name>] or <device-path>"}},
	Options: []args.Option{
		Type, poolName, namespaceName, imageName, snapName,
		Options,
	},
}

// List is "device list".
var List = &args.Command{
	Path:    []string{"device", "list"},
	Aliases: [][]string{{"showmapped"}, {"device", "ls"}},
	Short:   "List mapped rbd images.",
	Options: []args.Option{
		Type,
		{Name: "format", Arg: "arg", Help: "output format (plain, json, or xml) [default: plain]", Check: oneOf("plain", "json", "xml")},
		{Name: "pretty-format", Help: "pretty formatting (json and xml)"},
	},
}

func oneOf(values ...string) func(string) error {
	return func(v string) error {
		if slices.Contains(values, v) {
			return nil
		}
		return args.ErrArgument
	}
}

// IO is where a command writes, and the machine it asks.
type IO struct {
	Stdout, Stderr io.Writer
	Host           krbd.Host
}

// Local reports whether Run can do what line asks for with the kernel alone.
// It cannot print help, drive another kind of device, or know which pool is
// the cluster's default one.
func Local(line *args.Line) bool {
	if line.Help || line.Command != List && line.Command != Unmap {
		return false
	}
	switch kind, _ := line.Value("device-type"); {
	case kind == "nbd":
		return false
	case kind == "ggate", line.Command == List:
		return true
	}
	image, err := imageSpec(line)
	return isDevice(line.Operand(0)) || err != nil || image.Image == "" || image.Pool != ""
}

// Run runs a line for which Local is true.
func Run(ctx context.Context, line *args.Line, std IO) error {
	if line.Command == List {
		return RunList(line, std)
	}
	return RunUnmap(ctx, line, std, func() (string, error) {
		return "", errno.Errorf(syscall.EINVAL, "the pool was not specified")
	})
}

// CheckType refuses the kinds of device that this system does not have, in the
// words of the genuine tool.
func CheckType(line *args.Line) error {
	if kind, _ := line.Value("device-type"); kind == "ggate" {
		return errno.Errorf(syscall.EOPNOTSUPP, "ggate is only supported on FreeBSD")
	}
	return nil
}

// RunUnmap runs "device unmap". defaultPool is asked where the line names an
// image without a pool.
func RunUnmap(ctx context.Context, line *args.Line, std IO, defaultPool func() (string, error)) error {
	if err := CheckType(line); err != nil {
		return err
	}
	var image spec.Spec
	path := line.Operand(0)
	if !isDevice(path) {
		var err error
		if image, err = imageSpec(line); err != nil {
			return err
		}
		if image.Image == "" {
			return errno.Errorf(syscall.EINVAL, "%s", krbd.UnmapNeedsName)
		}
	}
	var opts krbd.UnmapOptions
	for _, set := range line.Options {
		if set.Option.Name != "options" {
			continue
		}
		if err := opts.Parse(set.Value); err != nil {
			return std.failed(err, krbd.BadUnmap)
		}
	}
	host := std.Host
	if host.Stderr == nil {
		host.Stderr = std.Stderr
	}
	if isDevice(path) {
		return std.unmapped(host.UnmapDevice(ctx, path, opts))
	}
	if image.Pool == "" {
		var err error
		if image.Pool, err = defaultPool(); err != nil {
			return err
		}
	}
	return std.unmapped(host.UnmapSpec(ctx, image, opts))
}

// imageSpec is the image that a line names, whole or in parts.
func imageSpec(line *args.Line) (spec.Spec, error) {
	var parts spec.Spec
	for name, part := range map[string]*string{"pool": &parts.Pool, "namespace": &parts.Namespace, "image": &parts.Image, "snap": &parts.Snap} {
		*part, _ = line.Value(name)
	}
	image, _, err := spec.Form{Snap: spec.MaySnap, Optional: true}.Read(parts, line.Operand(0))
	return image, err
}

func isDevice(operand string) bool { return strings.HasPrefix(operand, "/dev/") }

// failed tells which step failed, which the line that a command ends with does
// not say, and returns that line.
func (std IO) failed(err error, line string) error {
	var e *krbd.Error
	if errors.As(err, &e) && e.Text != "" {
		fmt.Fprintln(std.Stderr, "rbd: "+e.Text)
	}
	return &errno.Error{Code: errno.Code(err), Line: line, Err: err}
}

func (std IO) unmapped(err error) error {
	if err == nil {
		return nil
	}
	return std.failed(err, krbd.UnmapFailed+": "+errno.Text(errno.Code(err)))
}

// RunList runs "device list".
func RunList(line *args.Line, std IO) error {
	if err := CheckType(line); err != nil {
		return err
	}
	format, _ := line.Value("format")
	_, pretty := line.Value("pretty-format")
	f, err := output.New(format, pretty)
	if err != nil {
		return errno.Errorf(syscall.EINVAL, "%v", err)
	}
	devices, err := std.Host.List()
	if err != nil {
		return errno.Wrap(err, krbd.ListFailed)
	}
	if f == nil {
		return table(devices, std.Stdout)
	}
	f.OpenArray("devices")
	for _, d := range devices {
		f.OpenObject("device")
		f.String("id", strconv.Itoa(d.ID))
		f.String("pool", d.Spec.Pool)
		f.String("namespace", d.Spec.Namespace)
		f.String("name", d.Spec.Image)
		f.String("snap", cmp.Or(d.Spec.Snap, "-"))
		f.String("device", d.Path)
		f.Close()
	}
	f.Close()
	return f.Flush(std.Stdout)
}

func table(devices []krbd.Device, w io.Writer) error {
	if len(devices) == 0 {
		return nil
	}
	var cols []output.Column
	for _, name := range []string{"id", "pool", "namespace", "image", "snap", "device"} {
		cols = append(cols, output.Column{Heading: name})
	}
	t := output.NewTable(cols...)
	for _, d := range devices {
		t.Row(strconv.Itoa(d.ID), d.Spec.Pool, d.Spec.Namespace, d.Spec.Image, cmp.Or(d.Spec.Snap, "-"), d.Path)
	}
	return t.Flush(w)
}
