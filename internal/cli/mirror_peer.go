package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
)

var (
	uuidOperand     = args.Operand{Name: "uuid", Help: "peer uuid"}
	directionOption = args.Option{
		Name: "direction", Arg: "arg", Help: "mirroring direction (rx-only, rx-tx)\n[default: rx-tx]",
		Check: oneOf("rx-only", "rx-tx"),
	}
)

var mirrorPeerCommands = []*command{
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
