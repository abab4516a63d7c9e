package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// Options of librbd's can be overridden at three levels: by the monitors for clients, and by the metadata of a pool or
// an image.

var (
	configEntity = args.Operand{Name: "config-entity", Help: "config entity (global, client, client.<id>)"}
	configKey    = args.Operand{Name: "key", Help: "config key"}
	configValue  = args.Operand{Name: "value", Help: "config value"}
)

var configCommands = slices.Concat(
	configGroup("global", "a global-level", configEntity, nil, configActions{globalGet, globalList, globalRemove, globalSet}),
	configGroup("image", "an image-level", imageSpec, imageOptions, configActions{imageGet, imageList, imageRemove, imageSet}),
	configGroup("pool", "a pool-level", poolNameOperand, nil, configActions{poolGet, poolList, poolRemove, poolSet}),
)

type configActions struct{ get, list, remove, set func(*call) error }

// configGroup are the four commands on the options of one level.
func configGroup(level, what string, of args.Operand, options []args.Option, do configActions) []*command {
	path := func(word string) []string { return []string{"config", level, word} }
	_, bare, _ := strings.Cut(what, " ")
	return []*command{
		{
			Command: args.Command{
				Path: path("get"), Operands: []args.Operand{of, configKey}, Options: options,
				Short: "Get " + what + " configuration override.",
			},
			run: do.get,
		},
		{
			Command: args.Command{
				Path: path("list"), Aliases: [][]string{path("ls")}, Operands: []args.Operand{of},
				Options: slices.Concat(options, []args.Option{formatOption, prettyOption}),
				Short:   "List " + bare + " configuration overrides.",
			},
			run: do.list,
		},
		{
			Command: args.Command{
				Path: path("remove"), Aliases: [][]string{path("rm")}, Operands: []args.Operand{of, configKey}, Options: options,
				Short: "Remove " + what + " configuration override.",
			},
			run: do.remove,
		},
		{
			Command: args.Command{
				Path: path("set"), Operands: []args.Operand{of, configKey, configValue}, Options: options,
				Short: "Set " + what + " configuration override.",
			},
			run: do.set,
		},
	}
}

// configOption reads the name of an option, which has to be one of librbd's.
func (c *call) configOption() (string, error) {
	key := c.operand()
	switch {
	case key == "":
		return "", errno.Errorf(syscall.EINVAL, "config key was not specified")
	case !strings.HasPrefix(key, "rbd_"):
		return "", errno.Errorf(syscall.EINVAL, "not rbd option: %s", key)
	case !c.cluster.HasConfig(key):
		return "", errno.Errorf(syscall.EINVAL, "invalid config key: %s", key)
	}
	return key, nil
}

func notSet(key string) error { return errno.Errorf(syscall.ENOENT, "%s is not set", key) }

// overridden is the error of what was done to an override.
func overridden(err error, failed, key string) error {
	return errno.Wrap(err, "failed to "+failed+" "+key)
}

// globalEntity reads whom the monitors keep an option for.
func (c *call) globalEntity() (string, error) {
	who := c.operand()
	if who != "global" && who != "client" && !strings.HasPrefix(who, "client.") {
		return "", errno.Errorf(syscall.EINVAL, "invalid config entity: %s (must be global, client or client.<id>)", who)
	}
	return who, nil
}

// globalKey reads whom an option is kept for, and which.
func (c *call) globalKey() (who, key string, err error) {
	if who, err = c.globalEntity(); err == nil {
		key, err = c.configOption()
	}
	return who, key, err
}

// mon sends a command to the monitors and gives what they say to it, for a program and for a person.
func (c *call) mon(arguments map[string]string) (out []byte, status string, err error) {
	conn, err := c.cluster.Connect()
	if err != nil {
		return nil, "", err
	}
	command, err := json.Marshal(arguments)
	if err != nil {
		return nil, "", err
	}
	return conn.MonCommand(command)
}

// globalOption is an option that the monitors keep.
type globalOption struct{ Section, Name, Value string }

// globalOptions are the options of librbd's that the monitors keep.
func (c *call) globalOptions() ([]globalOption, error) {
	if _, err := c.cluster.Connect(); err != nil {
		return nil, err
	}
	out, status, err := c.mon(map[string]string{"prefix": "config dump", "format": "json"})
	if err != nil {
		return nil, errno.Errorf(errno.Code(err), "error reading config: %s", status)
	}
	var options []globalOption
	if err := json.Unmarshal(out, &options); err != nil {
		return nil, errno.Errorf(syscall.EINVAL, "error parsing config dump: %v", err)
	}
	return slices.DeleteFunc(options, func(o globalOption) bool { return !strings.HasPrefix(o.Name, "rbd_") }), nil
}

func globalGet(c *call) error {
	who, key, err := c.globalKey()
	if err != nil {
		return err
	}
	options, err := c.globalOptions()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(options, func(o globalOption) bool { return o.Section == who && o.Name == key })
	if i < 0 {
		return notSet(key)
	}
	_, err = fmt.Fprintln(c.stdout, options[i].Value)
	return err
}

// globalList lists what holds for an entity: of its own options and those of the wider ones the closest.
func globalList(c *call) error {
	who, err := c.globalEntity()
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	options, err := c.globalOptions()
	if err != nil {
		return err
	}
	wide := []string{"global", "client", who}
	wide = wide[:slices.Index(wide, who)+1]
	closest := map[string]globalOption{}
	for _, o := range options {
		rank := slices.Index(wide, o.Section)
		if had, ok := closest[o.Name]; rank >= 0 && (!ok || rank >= slices.Index(wide, had.Section)) {
			closest[o.Name] = o
		}
	}
	rows := make([][3]string, 0, len(closest))
	for _, o := range closest {
		rows = append(rows, [3]string{o.Name, o.Value, o.Section})
	}
	slices.SortFunc(rows, func(a, b [3]string) int { return cmp.Compare(a[0], b[0]) })
	return printConfig(c, f, "section", rows)
}

// printConfig prints options: name, value and where that is from.
func printConfig(c *call, f output.Formatter, from string, rows [][3]string) error {
	if f != nil {
		f.OpenArray("config")
		for _, row := range rows {
			f.OpenObject("option")
			f.String("name", row[0])
			f.String("value", row[1])
			f.String(from, row[2])
			f.Close()
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	if len(rows) == 0 {
		return nil
	}
	table := output.NewTable(
		output.Column{Heading: "Name"}, output.Column{Heading: "Value"},
		output.Column{Heading: strings.ToUpper(from[:1]) + from[1:]})
	for _, row := range rows {
		table.Row(row[0], row[1], row[2])
	}
	return table.Flush(c.stdout)
}

func globalRemove(c *call) error {
	who, key, err := c.globalKey()
	if err != nil {
		return err
	}
	return c.changeGlobal("error removing ", key, map[string]string{"prefix": "config rm", "who": who, "name": key})
}

func globalSet(c *call) error {
	who, key, err := c.globalKey()
	if err != nil {
		return err
	}
	return c.changeGlobal("error setting ", key, map[string]string{
		"prefix": "config set", "who": who, "name": key, "value": c.operand(),
	})
}

func (c *call) changeGlobal(failed, key string, arguments map[string]string) error {
	if _, err := c.cluster.Connect(); err != nil {
		return err
	}
	if _, status, err := c.mon(arguments); err != nil {
		return &errno.Error{Code: errno.Code(err), Line: failed + key + ": " + status, Err: err}
	}
	return nil
}

// configPool reads the name of a pool and, unless the command is to list, an option, and opens the pool.
func (c *call) configPool(list bool) (pool *rados.IOContext, key string, err error) {
	name := c.operand()
	if name == "" {
		return nil, "", errno.Errorf(syscall.EINVAL, "pool name was not specified")
	}
	if !list {
		if key, err = c.configOption(); err != nil {
			return nil, "", err
		}
	}
	pool, err = c.cluster.Pool(name, "")
	return pool, key, err
}

func poolGet(c *call) error {
	pool, key, err := c.configPool(false)
	if err != nil {
		return err
	}
	value, err := librbd.PoolMetadata(pool, librbd.ConfigPrefix+key)
	return printOverride(c, key, value, err)
}

func printOverride(c *call, key, value string, err error) error {
	if errno.Code(err) == syscall.ENOENT {
		return notSet(key)
	}
	if err != nil {
		return overridden(err, "get", key)
	}
	_, err = fmt.Fprintln(c.stdout, value)
	return err
}

func poolList(c *call) error {
	f, err := c.formatter()
	if err != nil {
		return err
	}
	pool, _, err := c.configPool(true)
	if err != nil {
		return err
	}
	options, err := librbd.PoolConfig(pool)
	if err != nil {
		return errno.Wrap(err, "failed to list config")
	}
	return printConfig(c, f, "source", sourced(options))
}

// sourced are options with the names of their sources.
func sourced(options []librbd.ConfigOption) [][3]string {
	names := map[librbd.ConfigSource]string{librbd.FromConfig: "config", librbd.FromPool: "pool", librbd.FromImage: "image"}
	rows := make([][3]string, len(options))
	for i, o := range options {
		rows[i] = [3]string{o.Name, o.Value, names[o.Source]}
	}
	return rows
}

func poolRemove(c *call) error {
	pool, key, err := c.configPool(false)
	if err != nil {
		return err
	}
	return overridden(librbd.RemovePoolMetadata(pool, librbd.ConfigPrefix+key), "remove", key)
}

func poolSet(c *call) error {
	pool, key, err := c.configPool(false)
	if err != nil {
		return err
	}
	return overridden(librbd.SetPoolMetadata(pool, librbd.ConfigPrefix+key, c.operand()), "set", key)
}

// withOverride does something to an option of an image.
func (c *call) withOverride(do func(image *rbd.Image, key string) error) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	key, err := c.configOption()
	if err != nil {
		return err
	}
	if len(c.line.Command.Operands) > 2 && c.Args().Get(c.next) == "" {
		return errno.Errorf(syscall.EINVAL, "image config value was not specified")
	}
	return c.change(s, func(image *rbd.Image) error { return do(image, key) })
}

func imageGet(c *call) error {
	return c.withOverride(func(image *rbd.Image, key string) error {
		value, err := image.GetMetadata(librbd.ConfigPrefix + key)
		return printOverride(c, key, value, err)
	})
}

func imageList(c *call) error {
	f, image, err := c.read()
	if err != nil {
		return err
	}
	options, err := librbd.ImageConfig(image)
	if err != nil {
		return errno.Wrap(err, "failed to list config")
	}
	if f == nil {
		fmt.Fprintf(c.stdout, "There are %d values:\n", len(options))
	}
	return printConfig(c, f, "source", sourced(options))
}

func imageRemove(c *call) error {
	return c.withOverride(func(image *rbd.Image, key string) error {
		return overridden(image.RemoveMetadata(librbd.ConfigPrefix+key), "remove", key)
	})
}

func imageSet(c *call) error {
	return c.withOverride(func(image *rbd.Image, key string) error {
		return overridden(image.SetMetadata(librbd.ConfigPrefix+key, c.Args().Get(c.next)), "set", key)
	})
}
