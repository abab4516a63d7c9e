package device

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/conf"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// errIndirect says that a line needs librados or librbd: there is more in it,
// or in the files that it is about, than is understood here, or the kernel did
// not map the image, which librbd has better words for.
var errIndirect = errors.New("needs librados")

// Direct maps the image of a line of Map with what the line, the environment
// and the files of this host say: no library is loaded for it and the cluster
// is not asked, which settings for clients it keeps. ceph are the words of the
// line that are Ceph's own options.
//
// Where it has not mapped anything it says nothing and done is false: the line
// is then the rbd command's.
func Direct(ctx context.Context, ceph []string, line *args.Line, env func(string) string, std IO) (done bool, err error) {
	request, err := directRequest(ceph, line, env)
	if err != nil {
		return false, nil
	}
	var warnings bytes.Buffer
	host := std.Host
	host.Stderr = &warnings
	mapped, err := host.Map(ctx, request)
	if err != nil && mapped.Path == "" && !errors.Is(err, krbd.ErrLost) {
		return false, nil
	}
	_, _ = std.Stderr.Write(warnings.Bytes())
	if err != nil {
		fmt.Fprintln(std.Stdout, krbd.Syslog)
		return true, std.failed(err, krbd.MapFailed+": "+errno.Text(errno.Code(err)))
	}
	fmt.Fprintln(std.Stdout, mapped.Path)
	return true, nil
}

func directRequest(ceph []string, line *args.Line, env func(string) string) (krbd.Request, error) {
	none := krbd.Request{}
	for _, set := range line.Options {
		switch set.Option.Name {
		case "pool", "namespace", "image", "snap", "read-only", "exclusive", "options":
		case "device-type":
			if set.Value != "krbd" {
				return none, errIndirect
			}
		default:
			return none, errIndirect
		}
	}
	client, err := readClient(ceph, env)
	if err != nil {
		return none, err
	}
	mapOptions, err := MapOptions(line)
	if err != nil {
		return none, err
	}
	var defaults krbd.MapOptions
	if err := defaults.Parse(client.options["rbd_default_map_options"]); err != nil {
		return none, err
	}
	mapOptions.SetDefaults(defaults)

	image, err := imageSpec(line)
	if err != nil {
		return none, err
	}
	if image.Pool == "" {
		image.Pool = cmp.Or(client.options["rbd_default_pool"], "rbd")
	}
	if image.Image == "" {
		return none, errIndirect
	}
	// Names want a resolver, which the launcher does without.
	monitors, err := conf.Monitors(client.options["mon_host"], func(string) ([]string, error) { return nil, errIndirect })
	if err != nil {
		return none, err
	}
	secret, err := conf.Secret(client.options["key"], client.options["keyfile"], client.options["keyring"], "client."+client.id)
	if err != nil {
		return none, err
	}
	return krbd.Request{Spec: image, Monitors: monitors, ID: client.id, Secret: krbd.NewSecret(secret), Options: mapOptions}, nil
}

// client is what is known of the client without librados.
type client struct {
	cluster, id string
	options     conf.Options // with those of the line in their place
}

// readClient reads the words of the line that are Ceph's, and the file that
// they or the environment name.
func readClient(words []string, env func(string) string) (client, error) {
	c := client{id: "admin"}
	file, named := env("CEPH_CONF"), false
	line := conf.Options{}
	for len(words) > 0 {
		name, value, n := args.CephOption(words, "-c", "--conf", "--cluster", "--id", "-n", "--name", "-m", "--mon_host", "-k", "--keyring", "-K", "--keyfile", "--key")
		if n == 0 || n > len(words) {
			return c, errIndirect
		}
		words = words[n:]
		switch name {
		case "-c", "--conf":
			file, named = value, true
		case "--cluster":
			c.cluster = value
		case "--id":
			c.id = value
		case "-n", "--name":
			id, ok := strings.CutPrefix(value, "client.")
			if !ok {
				return c, errIndirect
			}
			c.id = id
		case "-m", "--mon_host":
			line["mon_host"] = value
		case "-k", "--keyring":
			line["keyring"] = value
		case "-K", "--keyfile":
			line["keyfile"] = value
		case "--key":
			line["key"] = value
		}
	}
	if c.cluster == "" {
		c.cluster = "ceph"
		if name, ok := strings.CutSuffix(filepath.Base(file), ".conf"); ok && named {
			c.cluster = name
		}
	}
	named = named || file != ""
	// Ceph looks into more places, and into more than one file.
	if file == "" {
		file = "/etc/ceph/" + c.cluster + ".conf"
	}
	if env("CEPH_KEYRING") != "" || strings.ContainsAny(file, ", ;$~") || strings.ContainsAny(c.id+c.cluster, "/$[]") || c.id == "" {
		return c, errIndirect
	}
	text, err := os.ReadFile(file)
	// That nothing is there is what a line that says it all is used to, unless it names the file.
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || line["mon_host"] == "" || named) {
		return c, err
	}
	if c.options, err = conf.Parse(string(text), "client."+c.id); err != nil {
		return c, err
	}
	for name, value := range line {
		c.options[name] = value
	}
	for _, name := range []string{"mon_host", "keyring", "keyfile", "key", "rbd_default_pool", "rbd_default_map_options"} {
		value, ok := conf.Expand(c.options[name], c.cluster, "client."+c.id)
		if !ok {
			return c, errIndirect
		}
		c.options[name] = value
	}
	// Other ways to authenticate, and other ways to find monitors.
	for _, name := range []string{"auth_client_required", "auth_supported"} {
		if value := c.options[name]; value != "" && value != "cephx" {
			return c, errIndirect
		}
	}
	if c.options["mon_host"] == "" {
		return c, errIndirect
	}
	if c.options["keyring"] == "" {
		c.options["keyring"], _ = conf.Expand(defaultKeyring, c.cluster, "client."+c.id)
	}
	return c, nil
}

// defaultKeyring is what Ceph has for the option keyring of a client.
const defaultKeyring = "/etc/ceph/$cluster.$name.keyring,/etc/ceph/$cluster.keyring,/etc/ceph/keyring,/etc/ceph/keyring.bin"
