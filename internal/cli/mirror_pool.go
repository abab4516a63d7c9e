package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var (
	siteNameOption = args.Option{Name: "site-name", Arg: "arg", Help: "local site name"}
	promoteOption  = args.Option{Name: "force", Help: "promote even if not cleanly demoted by remote cluster"}
	verboseOption  = args.Option{Name: "verbose", Help: "be verbose"}

	poolInfoOptions = []args.Option{poolOption, namespaceOption, formatOption, prettyOption}
)

var mirrorPoolCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "demote"},
			Operands: []args.Operand{poolSpec},
			Options:  poolOptions,
			Short:    "Demote all primary images in the pool.",
		},
		run: func(c *call) error {
			return eachMirrored(c, "demote", "Demoted", func(image *rbd.Image, primary bool) (bool, error) {
				if !primary {
					return false, nil
				}
				return true, image.MirrorDemote()
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "disable"},
			Operands: []args.Operand{poolSpec},
			Options:  poolOptions,
			Short:    "Disable RBD mirroring by default within a pool.",
		},
		run: func(c *call) error {
			_, pool, err := c.openPool(spec.New)
			if err != nil {
				return err
			}
			return setMirrorMode(c, pool, rbd.MirrorModeDisabled, false)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "enable"},
			Operands: []args.Operand{poolSpec, {Name: "mode", Help: "mirror mode [image or pool]"}},
			Options: slices.Concat(poolOptions, []args.Option{siteNameOption},
				since(20, args.Option{Name: "remote-namespace", Arg: "arg", Help: "remote namespace name"})),
			Short: "Enable RBD mirroring by default within a pool.",
		},
		run: mirrorPoolEnable,
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "info"},
			Operands: []args.Operand{poolSpec},
			Options:  append(poolInfoOptions[:4:4], args.Option{Name: "all", Help: "list all attributes"}),
			Short:    "Show information about the pool mirroring configuration.",
		},
		run: mirrorPoolInfo,
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "promote"},
			Operands: []args.Operand{poolSpec},
			Options:  append([]args.Option{promoteOption}, poolOptions...),
			Short:    "Promote all non-primary images in the pool.",
		},
		run: func(c *call) error {
			return eachMirrored(c, "promote", "Promoted", func(image *rbd.Image, primary bool) (bool, error) {
				if primary {
					return false, nil
				}
				return true, image.MirrorPromote(c.Bool("force"))
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "status"},
			Operands: []args.Operand{poolSpec},
			Options:  append(poolInfoOptions[:4:4], verboseOption),
			Short:    "Show status for all mirrored images in the pool.",
		},
		run: mirrorPoolStatus,
	},
}

// mirroredPool opens a pool in which mirroring has to be on.
func mirroredPool(c *call, name, namespace string) (*rados.IOContext, error) {
	pool, err := c.cluster.Pool(name, namespace)
	if err != nil {
		return nil, err
	}
	return pool, checkMirrored(pool)
}

func checkMirrored(pool *rados.IOContext) error {
	mode, err := rbd.GetMirrorMode(pool)
	switch {
	case err != nil:
		return errno.Wrap(err, "failed to retrieve mirror mode")
	case mode == rbd.MirrorModeDisabled:
		return errno.Errorf(syscall.EINVAL, "mirroring not enabled on the pool")
	}
	return nil
}

func setSiteName(c *call) error {
	if !c.IsSet("site-name") {
		return nil
	}
	conn, err := c.cluster.Connect()
	if err != nil {
		return err
	}
	err = rbd.SetMirrorSiteName(conn, c.String("site-name"))
	switch code := errno.Code(err); {
	case err == nil:
		return nil
	case code == syscall.EOPNOTSUPP:
		return &errno.Error{Code: code, Line: "cluster does not support site names", Err: err}
	default:
		return &errno.Error{Code: code, Line: "failed to set site name" + errno.Text(code), Err: err}
	}
}

func mirrorPoolEnable(c *call) error {
	s, err := c.pool(spec.New)
	if err != nil {
		return err
	}
	modes := map[string]rbd.MirrorMode{"image": rbd.MirrorModeImage, "pool": rbd.MirrorModePool}
	if librbd.Release >= 20 {
		modes["init-only"] = librbd.MirrorModeInitOnly
	}
	mode, ok := modes[c.operand()]
	switch {
	case !ok && librbd.Release >= 20:
		return errno.Errorf(syscall.EINVAL, "mirror mode was not specified")
	case !ok:
		return errno.Errorf(syscall.EINVAL, "must specify 'image' or 'pool' mode.")
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	renamed := false
	if c.IsSet("site-name") {
		conn, err := c.cluster.Connect()
		if err != nil {
			return err
		}
		old, err := rbd.GetMirrorSiteName(conn)
		renamed = err == nil && old != c.String("site-name")
		if err := setSiteName(c); err != nil {
			return err
		}
	}
	if librbd.Release >= 20 && mode != librbd.MirrorModeInitOnly {
		remote := s.Namespace
		if c.IsSet("remote-namespace") {
			remote = c.String("remote-namespace")
		}
		if err := setRemoteNamespace(pool, remote); err != nil {
			return errno.Wrap(err, "failed to set the remote namespace")
		}
	}
	return setMirrorMode(c, pool, mode, renamed)
}

// setRemoteNamespace leaves alone what is so already: where mirroring goes on
// librbd lets nothing be set.
func setRemoteNamespace(pool *rados.IOContext, name string) error {
	old, err := librbd.RemoteNamespace(pool)
	if err == nil && old == name {
		return nil
	}
	return librbd.SetRemoteNamespace(pool, name)
}

// setMirrorMode says so when nothing changes, unless something else did.
func setMirrorMode(c *call, pool *rados.IOContext, mode rbd.MirrorMode, quiet bool) error {
	old, err := rbd.GetMirrorMode(pool)
	if err != nil {
		return errno.Wrap(err, "failed to retrieve mirror mode")
	}
	switch {
	case old == mode && quiet:
		return nil
	case old == mode && mode == rbd.MirrorModeDisabled:
		fmt.Fprintln(c.stdout, "rbd: mirroring is already disabled")
		return nil
	case old == mode:
		fmt.Fprintf(c.stdout, "rbd: mirroring is already configured for %s mode\n", poolMirrorMode(mode))
		return nil
	case old == librbd.MirrorModeInitOnly, mode == librbd.MirrorModeInitOnly:
	case old != rbd.MirrorModeDisabled && mode != rbd.MirrorModeDisabled:
		fmt.Fprintf(c.stdout, "note: changing mirroring mode from %s to %s\n", poolMirrorMode(old), poolMirrorMode(mode))
	}
	return silent(rbd.SetMirrorMode(pool, mode))
}

func poolMirrorMode(mode rbd.MirrorMode) string {
	switch mode {
	case rbd.MirrorModeDisabled:
		return "disabled"
	case rbd.MirrorModeImage:
		return "image"
	case rbd.MirrorModePool:
		return "pool"
	case librbd.MirrorModeInitOnly:
		return "init-only"
	}
	return "unknown"
}

func mirrorPoolInfo(c *call) error {
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
	mode, err := rbd.GetMirrorMode(pool)
	if err != nil {
		return silent(err)
	}
	conn, err := c.cluster.Connect()
	if err != nil {
		return err
	}
	site, err := rbd.GetMirrorSiteName(conn)
	if err != nil && errno.Code(err) != syscall.EOPNOTSUPP {
		return silent(err)
	}
	var peers []*rbd.MirrorPeerSite
	if s.Namespace == "" {
		if peers, err = rbd.ListMirrorPeerSite(pool); err != nil {
			return silent(err)
		}
	}
	enabled := mode != rbd.MirrorModeDisabled
	shown := enabled && s.Namespace == ""
	// Of a release before 20 these are not said.
	var uuid, remote string
	more := enabled && librbd.Release >= 20
	if more {
		if uuid, err = rbd.GetMirrorUUID(pool); err != nil {
			return silent(err)
		}
		uuid = strings.TrimRight(uuid, "\x00")
		if remote, err = librbd.RemoteNamespace(pool); err != nil {
			return silent(err)
		}
	}
	if f == nil {
		fmt.Fprintln(c.stdout, "Mode:", poolMirrorMode(mode))
		if shown {
			fmt.Fprintln(c.stdout, "Site Name:", site)
		}
		if more {
			fmt.Fprintf(c.stdout, "Mirror UUID: %s\nRemote Namespace: %s\n", uuid, remote)
		}
		if shown || more {
			fmt.Fprintln(c.stdout)
		}
		if !shown {
			return nil
		}
		return printPeers(c, pool, peers)
	}
	f.OpenObject("mirror")
	f.String("mode", poolMirrorMode(mode))
	if shown {
		f.String("site_name", site)
	}
	if more {
		f.String("mirror_uuid", uuid)
		f.String("remote_namespace", remote)
	}
	if shown {
		if err := writePeers(c, pool, peers, f); err != nil {
			return err
		}
	}
	f.Close()
	return f.Flush(c.stdout)
}

// eachMirrored does something with each mirrored image of a pool, several at
// a time, and says with how many it did.
func eachMirrored(c *call, verb, done string, do func(image *rbd.Image, primary bool) (bool, error)) error {
	s, err := c.pool(spec.New)
	if err != nil {
		return err
	}
	pool, err := mirroredPool(c, s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	// Nothing is read from the images.
	if err := c.cluster.SetConfig("rbd_cache", "false"); err != nil {
		return err
	}
	names, err := rbd.GetImageNames(pool)
	if err != nil && errno.Code(err) != syscall.ENOENT {
		fmt.Fprintf(c.stdout, "%s 0 mirrored images\n", done)
		return &errno.Error{Code: errno.Code(err), Line: "failed to list images within pool", Err: err}
	}
	var count atomic.Int64
	one := func(name string) (err error) {
		image, err := rbd.OpenImage(pool, name, rbd.NoSnapshot)
		if err != nil {
			return errno.Wrap(err, "failed to open image "+name)
		}
		defer func() {
			if failed := image.Close(); failed != nil {
				err = errors.Join(err, errno.Wrap(failed, "failed to close image "+name))
			}
		}()
		info, err := image.GetMirrorImageInfo()
		switch {
		case err != nil && errno.Code(err) == syscall.ENOENT:
			return nil
		case err != nil:
			return errno.Wrap(err, "failed to retrieve mirror image info for "+name)
		case info.State != rbd.MirrorImageEnabled:
			return nil
		}
		acted, err := do(image, info.Primary)
		if err != nil && errno.Code(err) == syscall.ENOENT {
			return nil
		}
		if acted && err == nil {
			count.Add(1)
		}
		return errno.Wrap(err, "failed to "+verb+" image "+name)
	}
	var failed []error
	err = stream.InOrder(c.concurrency(), func(put func(func() stream.Pending[error]) error) error {
		for _, name := range names {
			if err := put(func() stream.Pending[error] {
				return stream.Begin(func() (error, error) { return one(name), nil })
			}); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) error {
		failed = append(failed, err)
		return nil
	})
	fmt.Fprintf(c.stdout, "%s %d mirrored images\n", done, count.Load())
	return errors.Join(append(failed, err)...)
}

func mirrorPoolStatus(c *call) error {
	s, err := c.pool(spec.Any)
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, err := mirroredPool(c, s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	states, err := rbd.MirrorImageStatusSummary(pool)
	if err != nil {
		return errno.Wrap(err, "failed to get status summary for mirrored images")
	}
	images, total := healthOK, uint(0)
	order := slices.Sorted(maps.Keys(states))
	for _, state := range order {
		if state == rbd.MirrorImageStatusStateError {
			images = healthError
		} else if state != rbd.MirrorImageStatusStateReplaying && state != rbd.MirrorImageStatusStateStopped {
			images = max(images, healthWarning)
		}
		total += states[state]
	}
	daemons, daemonHealth := mirrorDaemons(c, pool)
	if f == nil {
		fmt.Fprintf(c.stdout, "health: %s\ndaemon health: %s\nimage health: %s\nimages: %d total\n",
			max(images, daemonHealth), daemonHealth, images, total)
		for _, state := range order {
			fmt.Fprintf(c.stdout, "    %d %s\n", states[state], mirrorStatusState(state))
		}
	} else {
		f.OpenObject("status")
		f.OpenObject("summary")
		f.String("health", max(images, daemonHealth).String())
		f.String("daemon_health", daemonHealth.String())
		f.String("image_health", images.String())
		f.OpenObject("states")
		for _, state := range order {
			f.Int(mirrorStatusState(state), int64(states[state]))
		}
		f.Close()
		f.Close()
	}
	if c.Bool("verbose") {
		err = mirrorPoolDetails(c, s, pool, daemons, f)
	}
	if f != nil {
		f.Close()
		err = errors.Join(err, f.Flush(c.stdout))
	}
	return err
}

// mirrorPoolDetails shows each daemon and each image.
func mirrorPoolDetails(c *call, s spec.Spec, pool *rados.IOContext, daemons []*mirrorDaemon, f output.Formatter) error {
	if f == nil {
		printDaemons(daemons, c.stdout)
		fmt.Fprint(c.stdout, "\nIMAGES")
	} else {
		writeDaemons(daemons, f)
		f.OpenArray("images")
	}
	peers, err := mirrorPeers(c, s)
	if err != nil {
		return err
	}
	instances := make(map[string]string)
	ids, err := rbd.MirrorImageInstanceIDList(pool, "", 0)
	if err != nil {
		// The daemons are then not named.
		fmt.Fprintf(c.stderr, "rbd: failed to get instance id list: %s\n", errno.Text(errno.Code(err)))
	}
	for _, i := range ids {
		instances[i.ID] = i.InstanceID
	}
	names, err := rbd.GetImageNames(pool)
	if err != nil && errno.Code(err) != syscall.ENOENT {
		return &errno.Error{Code: errno.Code(err), Line: "failed to list images within pool", Err: err}
	}
	type detail struct {
		status rbd.GlobalMirrorImageStatus
		id     string
		err    error
	}
	var failed []error
	err = stream.InOrder(c.concurrency(), func(put func(func() stream.Pending[detail]) error) error {
		inspect := func(name string) func() (detail, error) {
			return func() (d detail, _ error) {
				image, err := rbd.OpenImageReadOnly(pool, name, rbd.NoSnapshot)
				if err != nil {
					d.err = errno.Wrap(err, "failed to open image "+name)
					return d, nil
				}
				defer image.Close()
				if d.id, d.err = image.GetId(); d.err == nil {
					d.status, d.err = image.GetGlobalMirrorStatus()
				}
				if d.err != nil && errno.Code(d.err) == syscall.ENOENT {
					d.err = nil
				}
				d.err = errno.Wrap(d.err, "failed to status image "+name)
				return d, nil
			}
		}
		for _, name := range names {
			if err := put(func() stream.Pending[detail] { return stream.Begin(inspect(name)) }); err != nil {
				return err
			}
		}
		return nil
	}, func(d detail) error {
		failed = append(failed, d.err)
		if d.err != nil || d.status.Info.GlobalID == "" {
			return nil
		}
		m := newMirrorStatus(d.status, peers)
		if m.local != nil && m.local.Up {
			m.daemon = daemonOf(daemons, instances[d.id])
		}
		if f != nil {
			f.OpenObject("image")
			m.write(d.status.Name, f)
			f.Close()
		} else {
			fmt.Fprintln(c.stdout)
			m.print(d.status.Name, c.stdout)
		}
		return nil
	})
	if f != nil {
		f.Close()
	}
	return errors.Join(append(failed, err)...)
}
