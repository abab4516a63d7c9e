package cli

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/device"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var deviceCommands = []*command{
	deviceAttachCommand,
	deviceDetachCommand,
	nbdListCommand,
	nbdMapCommand,
	nbdUnmapCommand,
	{Command: *device.List, run: byType(nbdList, deviceList)},
	{Command: withSnapID(device.Map), run: byType(nbdMap, deviceMap)},
	{Command: withSnapID(device.Unmap), run: byType(nbdUnmap, deviceUnmap)},
}

// withSnapID is a command of the launcher, which hands over lines with options
// that it does not know, with what rbd-nbd takes besides.
func withSnapID(known *args.Command) args.Command {
	c := *known
	last := len(c.Options) - 1
	c.Options = slices.Concat(c.Options[:last], deviceSnapID, c.Options[last:])
	return c
}

// host is the machine on which devices are mapped.
func (c *call) host() krbd.Host { return krbd.Host{Stderr: c.stderr} }

func (c *call) device() device.IO {
	return device.IO{Stdout: c.stdout, Stderr: c.stderr, Host: c.host()}
}

func deviceList(c *call) error {
	return device.RunList(c.line, c.device())
}

func deviceUnmap(c *call) error {
	return device.RunUnmap(c.Context.Context, c.line, c.device(), func() (string, error) {
		// The monitors may say which pool is the default one.
		if _, err := c.cluster.Connect(); err != nil {
			return "", err
		}
		return c.cluster.Config("rbd_default_pool"), nil
	})
}

func deviceMap(c *call) error {
	s, err := c.spec(spec.Form{Snap: spec.MaySnap})
	if err != nil {
		return err
	}
	options, err := device.MapOptions(c.line)
	if err != nil {
		return errors.Join(textOf(err), &errno.Error{Code: errno.Code(err), Line: krbd.BadMap, Err: err})
	}
	if c.IsSet("quiesce") {
		fmt.Fprintln(c.stderr, "rbd: "+krbd.NoQuiesce)
	}
	if c.IsSet("quiesce-hook") {
		fmt.Fprintln(c.stderr, "rbd: "+krbd.NoQuiesceHook)
	}
	// Opening the image finds out what is wrong with pool and image in better
	// words than the kernel's, and for the price of one round trip.
	image, err := c.open(spec.Spec{Pool: s.Pool, Namespace: s.Namespace, Image: s.Image}, true)
	if err != nil {
		return err
	}
	defer image.Close()
	if s.Pool == "" {
		s.Pool = c.cluster.Config("rbd_default_pool")
	}
	var defaults krbd.MapOptions
	if err := defaults.Parse(c.cluster.Config("rbd_default_map_options")); err != nil {
		return errors.Join(textOf(err), &errno.Error{Code: errno.Code(err), Line: krbd.BadDefaults, Err: err})
	}
	options.SetDefaults(defaults)
	mapped, err := mapImage(c, s, options)
	if err != nil {
		return mapFailed(c, s, image, err)
	}
	fmt.Fprintln(c.stdout, mapped.Path)
	return nil
}

func mapImage(c *call, s spec.Spec, options krbd.MapOptions) (krbd.Device, error) {
	monitors, err := c.cluster.Monitors()
	if err != nil {
		return krbd.Device{}, err
	}
	secret, err := c.cluster.Secret()
	if err != nil {
		return krbd.Device{}, err
	}
	return c.host().Map(c.Context.Context, krbd.Request{
		Spec:     s,
		Monitors: monitors,
		ID:       c.cluster.ID(),
		Secret:   krbd.NewSecret(secret),
		Options:  options,
	})
}

// mapFailed says, in this order, which step failed, what the image has that
// the kernel has not, where to look, and with what number it all ended.
func mapFailed(c *call, s spec.Spec, image *rbd.Image, err error) error {
	if step := textOf(err); step != nil {
		printError(step, c.stderr)
	}
	if errors.Is(err, syscall.ENXIO) {
		explainFeatures(c, s, image)
	}
	fmt.Fprintln(c.stdout, krbd.Syslog)
	c.stdout.Flush()
	return errno.Wrap(err, krbd.MapFailed)
}

// textOf is the line on the step that failed, nil where there is none.
func textOf(err error) error {
	var own *krbd.Error
	if errors.As(err, &own) {
		if own.Text == "" {
			return nil
		}
		return &errno.Error{Code: own.Errno, Line: own.Text, Err: err}
	}
	return err
}

// explainFeatures names the image's features that this kernel lacks, which is
// what ENXIO most often means.
func explainFeatures(c *call, s spec.Spec, image *rbd.Image) {
	features, err := image.GetFeatures()
	if err != nil {
		return
	}
	supported, _ := c.host().SupportedFeatures()
	fmt.Fprintln(c.stdout, krbd.Mismatch(c.shortSpec(s), features, supported))
}

// shortSpec is an image's spec as a person would type it: without the default
// pool.
func (c *call) shortSpec(s spec.Spec) string {
	s.Snap = ""
	if s.Namespace == "" && s.Pool == c.cluster.Config("rbd_default_pool") {
		s.Pool = ""
	}
	return s.String()
}
