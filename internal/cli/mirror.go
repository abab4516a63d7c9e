package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var (
	uuidOperand     = args.Operand{Name: "uuid", Help: "peer uuid"}
	siteNameOption  = args.Option{Name: "site-name", Arg: "arg", Help: "local site name"}
	directionOption = args.Option{
		Name: "direction", Arg: "arg", Help: "mirroring direction (rx-only, rx-tx)\n[default: rx-tx]",
		Check: oneOf("rx-only", "rx-tx"),
	}
	promoteOption = args.Option{Name: "force", Help: "promote even if not cleanly demoted by remote cluster"}
	verboseOption = args.Option{Name: "verbose", Help: "be verbose"}

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
			Path: []string{"mirror", "pool", "peer", "add"},
			Operands: []args.Operand{
				poolNameOperand,
				{Name: "remote-cluster-spec", Help: "remote cluster spec\n(example: [<client name>@]<cluster name>)"},
			},
			Options: []args.Option{
				poolOption,
				{Name: "remote-client-name", Arg: "arg", Help: "remote client name"},
				{Name: "remote-cluster", Arg: "arg", Help: "remote cluster name"},
				{Name: "remote-mon-host", Arg: "arg", Help: "remote mon host(s)"},
				{Name: "remote-key-file", Arg: "arg", Help: "path to file containing remote key"},
				directionOption,
			},
			Short: "Add a mirroring peer to a pool.",
		},
		run: mirrorPeerAdd,
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "peer", "bootstrap", "create"},
			Operands: []args.Operand{poolNameOperand},
			Options:  []args.Option{poolOption, siteNameOption},
			Short:    "Create a peer bootstrap token to import in a remote cluster",
		},
		run: mirrorBootstrapCreate,
	},
	{
		Command: args.Command{
			Path: []string{"mirror", "pool", "peer", "bootstrap", "import"},
			Operands: []args.Operand{
				poolNameOperand,
				{Name: "token-path", Help: "bootstrap token file (or '-' for stdin)"},
			},
			Options: []args.Option{
				poolOption, siteNameOption,
				{Name: "token-path", Arg: "arg", Help: "bootstrap token file (or '-' for stdin)"},
				directionOption,
			},
			Short: "Import a peer bootstrap token created from a remote cluster",
		},
		run: mirrorBootstrapImport,
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "pool", "peer", "remove"},
			Operands: []args.Operand{poolNameOperand, uuidOperand},
			Options:  []args.Option{poolOption},
			Short:    "Remove a mirroring peer from a pool.",
		},
		run: func(c *call) error {
			name, err := c.onlyPool()
			if err != nil {
				return err
			}
			uuid, err := c.peerUUID()
			if err != nil {
				return err
			}
			pool, err := mirroredPool(c, name, "")
			if err != nil {
				return err
			}
			if err := rbd.RemoveMirrorPeerSite(pool, uuid); err != nil {
				return &errno.Error{Code: errno.Code(err), Line: "error removing mirror peer", Err: err}
			}
			return nil
		},
	},
	{
		Command: args.Command{
			Path: []string{"mirror", "pool", "peer", "set"},
			Operands: []args.Operand{
				poolNameOperand, uuidOperand,
				{Name: "key", Help: "peer parameter\n(direction, site-name, client, mon-host, key-file)"},
				{Name: "value", Help: "new value for specified key\n(rx-only, tx-only, or rx-tx for direction)"},
			},
			Options: []args.Option{poolOption},
			Short:   "Update mirroring peer settings.",
		},
		run: mirrorPeerSet,
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

func (c *call) peerUUID() (string, error) {
	uuid := c.operand()
	switch {
	case uuid == "":
		return "", errno.Errorf(syscall.EINVAL, "must specify peer uuid")
	case !regexp.MustCompile(`(?i)^[A-F0-9]{8}(-[A-F0-9]{4}){3}-[A-F0-9]{12}$`).MatchString(uuid):
		return "", errno.Errorf(syscall.EINVAL, "invalid uuid '%s'", uuid)
	}
	return uuid, nil
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

func peerDirection(d rbd.MirrorPeerDirection) string {
	switch d {
	case rbd.MirrorPeerDirectionRx:
		return "rx-only"
	case rbd.MirrorPeerDirectionTx:
		return "tx-only"
	case rbd.MirrorPeerDirectionRxTx:
		return "rx-tx"
	}
	return "unknown"
}

func readDirection(text string) (rbd.MirrorPeerDirection, bool) {
	for _, d := range []rbd.MirrorPeerDirection{rbd.MirrorPeerDirectionRx, rbd.MirrorPeerDirectionTx, rbd.MirrorPeerDirectionRxTx} {
		if peerDirection(d) == text {
			return d, true
		}
	}
	return 0, false
}

// direction is the value of --direction.
func (c *call) direction() rbd.MirrorPeerDirection {
	if d, ok := readDirection(c.String("direction")); ok {
		return d
	}
	return rbd.MirrorPeerDirectionRxTx
}

// peerAttributes reads what a pool knows of a peer beyond its name. Nothing at
// all is fine, and a nil map.
func peerAttributes(pool *rados.IOContext, uuid string) (map[string]string, error) {
	attributes, err := rbd.GetAttributesMirrorPeerSite(pool, uuid)
	switch code := errno.Code(err); {
	case err == nil:
		return attributes, nil
	case code == syscall.ENOENT:
		return nil, nil
	case code == syscall.EPERM:
		return nil, &errno.Error{Code: code, Line: "permission denied attempting to access peer config-key secrets from the monitor", Err: err}
	case code == syscall.EINVAL:
		return nil, &errno.Error{Code: code, Line: "corrupt mirroring peer config", Err: err}
	}
	return nil, errno.Wrap(err, "error reading mirroring peer config")
}

func setPeerAttributes(pool *rados.IOContext, uuid string, attributes map[string]string) error {
	err := rbd.SetAttributesMirrorPeerSite(pool, uuid, attributes)
	if err != nil && errno.Code(err) == syscall.EPERM {
		return &errno.Error{Code: syscall.EPERM, Line: "permission denied attempting to set peer config-key secrets in the monitor", Err: err}
	}
	return errno.Wrap(err, "failed to update mirroring peer config")
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

func printPeers(c *call, pool *rados.IOContext, peers []*rbd.MirrorPeerSite) error {
	none := ""
	if len(peers) == 0 {
		none = "none"
	}
	fmt.Fprintln(c.stdout, "Peer Sites: "+none)
	for i, p := range peers {
		fmt.Fprintf(c.stdout, "\nUUID: %s\nName: %s\n", p.UUID, p.SiteName)
		if p.Direction != rbd.MirrorPeerDirectionRx || p.MirrorUUID != "" {
			fmt.Fprintln(c.stdout, "Mirror UUID:", p.MirrorUUID)
		}
		fmt.Fprintln(c.stdout, "Direction:", peerDirection(p.Direction))
		if p.Direction != rbd.MirrorPeerDirectionTx || p.ClientName != "" {
			fmt.Fprintln(c.stdout, "Client:", p.ClientName)
		}
		if c.Bool("all") {
			attributes, err := peerAttributes(pool, p.UUID)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "Mon Host: %s\nKey: %s\n", attributes["mon_host"], attributes["key"])
		}
		if i < len(peers)-1 {
			fmt.Fprintln(c.stdout)
		}
	}
	return nil
}

func writePeers(c *call, pool *rados.IOContext, peers []*rbd.MirrorPeerSite, f output.Formatter) error {
	f.OpenArray("peers")
	for _, p := range peers {
		var attributes map[string]string
		if c.Bool("all") {
			var err error
			if attributes, err = peerAttributes(pool, p.UUID); err != nil {
				return err
			}
		}
		f.OpenObject("peer")
		f.String("uuid", p.UUID)
		f.String("direction", peerDirection(p.Direction))
		f.String("site_name", p.SiteName)
		f.String("mirror_uuid", p.MirrorUUID)
		f.String("client_name", p.ClientName)
		for _, key := range slices.Sorted(maps.Keys(attributes)) {
			f.String(key, attributes[key])
		}
		f.Close()
	}
	f.Close()
	return nil
}

// readKeyFile reads the first line of a file.
func readKeyFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return "", errno.Errorf(syscall.EINVAL, "failed to open %s", path)
	}
	if err != nil {
		return "", errno.Errorf(syscall.EINVAL, "failed to read key from %s", path)
	}
	key, _, _ := strings.Cut(string(data), "\n")
	return key, nil
}

// oneReceiver refuses what would give a pool two peers to receive from, which
// rbd-mirror cannot do. The peer of that uuid does not count.
func oneReceiver(pool *rados.IOContext, uuid string) error {
	peers, err := rbd.ListMirrorPeerSite(pool)
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Line: "failed to list mirror peers", Err: err}
	}
	for _, p := range peers {
		if p.UUID != uuid && p.Direction != rbd.MirrorPeerDirectionTx {
			return errno.Errorf(syscall.EINVAL, "multiple RX peers are not currently supported")
		}
	}
	return nil
}

func mirrorPeerAdd(c *call) error {
	name, err := c.onlyPool()
	if err != nil {
		return err
	}
	client, cluster := c.cluster.Name(), c.String("remote-cluster")
	if c.IsSet("remote-client-name") {
		client = c.String("remote-client-name")
	}
	attributes := make(map[string]string)
	if c.IsSet("remote-mon-host") {
		attributes["mon_host"] = c.String("remote-mon-host")
	}
	if c.IsSet("remote-key-file") {
		if attributes["key"], err = readKeyFile(c.String("remote-key-file")); err != nil {
			return err
		}
	}
	if text := c.operand(); text != "" {
		match := regexp.MustCompile(`^(?:(client\.[^@]+)@)?([^/@]+)$`).FindStringSubmatch(text)
		if match == nil {
			return errno.Errorf(syscall.EINVAL, "invalid spec '%s'", text)
		}
		if match[1] != "" {
			client = match[1]
		}
		cluster = match[2]
	}
	if cluster == "" {
		return errno.Errorf(syscall.EINVAL, "remote cluster was not specified")
	}
	pool, err := mirroredPool(c, name, "")
	if err != nil {
		return err
	}
	if err := oneReceiver(pool, ""); err != nil {
		return err
	}
	uuid, err := rbd.AddMirrorPeerSite(pool, cluster, client, c.direction())
	switch {
	case err != nil && errno.Code(err) == syscall.EEXIST:
		return &errno.Error{Code: syscall.EEXIST, Line: "mirror peer already exists", Err: err}
	case err != nil:
		return &errno.Error{Code: errno.Code(err), Line: "error adding mirror peer", Err: err}
	}
	if len(attributes) > 0 {
		if err := setPeerAttributes(pool, uuid, attributes); err != nil {
			return err
		}
	}
	fmt.Fprintln(c.stdout, uuid)
	return nil
}

func mirrorPeerSet(c *call) error {
	name, err := c.onlyPool()
	if err != nil {
		return err
	}
	uuid, err := c.peerUUID()
	if err != nil {
		return err
	}
	keys := []string{"client", "cluster", "direction", "key-file", "mon-host", "site-name"}
	key := c.Args().Get(c.next)
	if !slices.Contains(keys, key) {
		return errno.Errorf(syscall.EINVAL, "must specify '%s' key.", strings.Join(keys, "', '"))
	}
	value := c.Args().Get(c.next + 1)
	switch {
	case value == "" && (key == "client" || key == "cluster"):
		fmt.Fprintf(c.stderr, "rbd: must specify new %s value.\n", key)
	case key == "key-file":
		key = "key"
		if value, err = readKeyFile(value); err != nil {
			return err
		}
	case key == "mon-host":
		key = "mon_host"
	}
	pool, err := mirroredPool(c, name, "")
	if err != nil {
		return err
	}
	switch key {
	case "client":
		err = rbd.SetMirrorPeerSiteClientName(pool, uuid, value)
	case "site-name", "cluster":
		err = rbd.SetMirrorPeerSiteName(pool, uuid, value)
	case "direction":
		direction, ok := readDirection(value)
		if !ok {
			return errno.Errorf(syscall.EINVAL, "invalid direction")
		}
		if direction != rbd.MirrorPeerDirectionTx {
			if err := oneReceiver(pool, uuid); err != nil {
				return err
			}
		}
		err = rbd.SetMirrorPeerSiteDirection(pool, uuid, direction)
	default:
		attributes, failed := peerAttributes(pool, uuid)
		if failed != nil {
			return failed
		}
		switch {
		case attributes == nil: // as the genuine tool, also by an empty value
			attributes = map[string]string{key: value}
		case value == "":
			delete(attributes, key)
		default:
			attributes[key] = value
		}
		err = setPeerAttributes(pool, uuid, attributes)
	}
	if err != nil && errno.Code(err) == syscall.ENOENT {
		return errors.Join(stepOf(err), &errno.Error{Code: syscall.ENOENT, Line: "mirror peer " + uuid + " does not exist", Err: err})
	}
	if stepOf(err) != nil {
		return err
	}
	return silent(err)
}

// stepOf is an error that has a line of its own, or nil.
func stepOf(err error) error {
	var own *errno.Error
	if errors.As(err, &own) {
		return own
	}
	return nil
}

func mirrorBootstrapCreate(c *call) error {
	name, err := c.onlyPool()
	if err != nil {
		return err
	}
	pool, err := mirroredPool(c, name, "")
	if err != nil {
		return err
	}
	if err := setSiteName(c); err != nil {
		return err
	}
	token, err := rbd.CreateMirrorPeerBootstrapToken(pool)
	switch {
	case err != nil && errno.Code(err) == syscall.EEXIST:
		fmt.Fprintln(c.stderr, "rbd: mismatch with pre-existing RBD mirroring peer user caps")
	case err != nil:
		return errno.Wrap(err, "failed to create mirroring bootstrap token")
	}
	fmt.Fprintln(c.stdout, token)
	return nil
}

func mirrorBootstrapImport(c *call) error {
	name, err := c.onlyPool()
	if err != nil {
		return err
	}
	path := c.String("token-path")
	if !c.IsSet("token-path") {
		path = c.operand()
	}
	if path == "" {
		return errno.Errorf(syscall.EINVAL, "token path was not specified")
	}
	token, err := readText(path, 1023, "error reading token file")
	if err != nil {
		return sinceWithText(20, err)
	}
	pool, err := c.cluster.Pool(name, "")
	if err != nil {
		return err
	}
	if err := setSiteName(c); err != nil {
		return err
	}
	err = rbd.ImportMirrorPeerBootstrapToken(pool, c.direction(), token)
	switch code := errno.Code(err); {
	case err == nil:
		return nil
	case code == syscall.ENOSYS:
		return &errno.Error{Code: code, Line: "mirroring is not enabled on remote peer", Err: err}
	default:
		return sinceWithText(20, &errno.Error{Code: code, Line: "failed to import peer bootstrap token", Err: err})
	}
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

// health is how mirroring does, in rising order of concern.
type health int

const (
	healthOK health = iota
	healthUnknown
	healthWarning
	healthError
)

func (h health) String() string { return [...]string{"OK", "UNKNOWN", "WARNING", "ERROR"}[h] }

// mirrorDaemon is an rbd-mirror that the monitors know of.
type mirrorDaemon struct {
	serviceID, instanceID, clientID, host, version string
	leader                                         bool
	health                                         health
	callouts                                       []string
}

func (d *mirrorDaemon) description() string {
	text := d.clientID
	if text == "" {
		text = d.serviceID
	}
	if d.host != "" {
		text += " on " + d.host
	}
	return text
}

func (d *mirrorDaemon) write(f output.Formatter) {
	f.OpenObject("daemon_service")
	f.String("service_id", d.serviceID)
	f.String("instance_id", d.instanceID)
	f.String("daemon_id", d.clientID)
	f.String("hostname", d.host)
	f.Close()
}

// mirrorDaemons asks the monitors for the daemons and how they do in a pool.
// What cannot be found out is told and left out.
func mirrorDaemons(c *call, pool *rados.IOContext) ([]*mirrorDaemon, health) {
	daemons, err := listMirrorDaemons(c.cluster)
	if err != nil {
		printError(err, c.stderr)
	}
	if err != nil || len(daemons) == 0 {
		return daemons, healthUnknown
	}
	h, err := askMirrorDaemons(c.cluster, pool, daemons)
	if err != nil {
		printError(err, c.stderr)
		return daemons, healthUnknown
	}
	return daemons, h
}

// monJSON asks the monitors and reads their answer into a structure.
func monJSON(cluster *ceph.Cluster, prefix, failed, invalid string, answer any) error {
	conn, err := cluster.Connect()
	if err != nil {
		return err
	}
	command, err := json.Marshal(map[string]string{"prefix": prefix, "format": "json"})
	if err != nil {
		return err
	}
	out, _, err := conn.MonCommand(command)
	if err != nil {
		return errno.Wrap(err, failed)
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return &errno.Error{Code: syscall.EBADMSG, Line: invalid, Err: err}
	}
	return nil
}

func listMirrorDaemons(cluster *ceph.Cluster) ([]*mirrorDaemon, error) {
	var dump struct {
		Services map[string]struct {
			Daemons map[string]json.RawMessage `json:"daemons"`
		} `json:"services"`
	}
	if err := monJSON(cluster, "service dump", "failed to query services", "invalid service dump JSON received", &dump); err != nil {
		return nil, err
	}
	var list []*mirrorDaemon
	for _, id := range slices.Sorted(maps.Keys(dump.Services["rbd-mirror"].Daemons)) {
		var daemon struct {
			Metadata *struct {
				ID      string `json:"id"`
				Version string `json:"ceph_version_short"`
				Host    string `json:"hostname"`
			} `json:"metadata"`
		}
		// Not all that stands there is a daemon.
		if err := json.Unmarshal(dump.Services["rbd-mirror"].Daemons[id], &daemon); err != nil || daemon.Metadata == nil {
			continue
		}
		m := daemon.Metadata
		list = append(list, &mirrorDaemon{serviceID: id, clientID: m.ID, host: m.Host, version: m.Version, health: healthUnknown})
	}
	return list, nil
}

func askMirrorDaemons(cluster *ceph.Cluster, pool *rados.IOContext, daemons []*mirrorDaemon) (health, error) {
	var services map[string]map[string]struct {
		Status *struct {
			JSON *string `json:"json"`
		} `json:"status"`
	}
	if err := monJSON(cluster, "service status", "failed to query service status", "invalid service status JSON received", &services); err != nil {
		return healthUnknown, err
	}
	if services["rbd-mirror"] == nil {
		return healthUnknown, nil
	}
	leader, reporting := false, false
	for _, d := range daemons {
		report, ok := services["rbd-mirror"][d.serviceID]
		if !ok {
			continue
		}
		if report.Status == nil || report.Status.JSON == nil {
			d.health, d.callouts = healthWarning, append(d.callouts, "not reporting status")
			continue
		}
		var pools map[string]struct {
			InstanceID string `json:"instance_id"`
			Leader     bool   `json:"leader"`
			Callouts   map[string]struct {
				Level string `json:"level"`
				Text  string `json:"text"`
			} `json:"callouts"`
		}
		if err := json.Unmarshal([]byte(*report.Status.JSON), &pools); err != nil {
			return healthUnknown, &errno.Error{Code: syscall.EBADMSG, Line: "invalid service status daemon status JSON received", Err: err}
		}
		status, ok := pools[fmt.Sprint(pool.GetPoolID())]
		if !ok {
			d.health, d.callouts = healthWarning, append(d.callouts, "not reporting status for pool")
			continue
		}
		reporting = true
		leader = leader || status.Leader
		d.instanceID, d.leader, d.health = status.InstanceID, status.Leader, healthOK
		for _, key := range slices.Sorted(maps.Keys(status.Callouts)) {
			callout := status.Callouts[key]
			d.health = max(d.health, map[string]health{"error": healthError, "warning": healthWarning}[callout.Level])
			d.callouts = append(d.callouts, callout.Text)
		}
	}
	h := healthOK
	switch {
	case !reporting:
		h = healthError
	case !leader:
		h = healthWarning
	}
	for _, d := range daemons {
		h = max(h, d.health)
	}
	return h, nil
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
		fmt.Fprint(c.stdout, "\nDAEMONS\n")
		if len(daemons) == 0 {
			fmt.Fprintln(c.stdout, "  none")
		}
		for _, d := range daemons {
			fmt.Fprintf(c.stdout, "service %s:\n  instance_id: %s\n  client_id: %s\n  hostname: %s\n  version: %s\n  leader: %t\n  health: %s\n",
				d.serviceID, d.instanceID, d.clientID, d.host, d.version, d.leader, d.health)
			if len(d.callouts) > 0 {
				fmt.Fprintf(c.stdout, "  callouts: %s\n", strings.Join(d.callouts, ","))
			}
			fmt.Fprintln(c.stdout)
		}
		fmt.Fprint(c.stdout, "\nIMAGES")
	} else {
		f.OpenArray("daemons")
		for _, d := range daemons {
			f.OpenObject("daemon")
			f.String("service_id", d.serviceID)
			f.String("instance_id", d.instanceID)
			f.String("client_id", d.clientID)
			f.String("hostname", d.host)
			f.String("ceph_version", d.version)
			f.Bool("leader", d.leader)
			f.String("health", d.health.String())
			if len(d.callouts) > 0 {
				f.OpenArray("callouts")
				for _, text := range d.callouts {
					f.String("callout", text)
				}
				f.Close()
			}
			f.Close()
		}
		f.Close()
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

// daemonOf is nil where no daemon has that instance.
func daemonOf(daemons []*mirrorDaemon, instance string) *mirrorDaemon {
	for _, d := range daemons {
		if instance != "" && d.instanceID == instance {
			return d
		}
	}
	return nil
}
