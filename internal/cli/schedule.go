package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// The manager keeps schedules at levels: the whole cluster, a pool, a
// namespace and, for some, an image.

var scheduleCommands = slices.Concat(
	scheduleGroup([]string{"mirror", "snapshot", "schedule"}, "mirror snapshot schedule", imageOptions, printScheduledImages),
)

// scheduleGroup are the four commands on schedules of one kind.
func scheduleGroup(path []string, what string, level []args.Option, status func(*call, []byte, error) error) []*command {
	prefix := "rbd " + strings.Join(path, " ")
	word := func(w string) []string { return append(path[:len(path):len(path)], w) }
	options := func(more ...args.Option) []args.Option { return append(level[:len(level):len(level)], more...) }
	interval := args.Operand{Name: "interval", Help: "schedule interval"}
	start := args.Operand{Name: "start-time", Help: "schedule start time", Optional: true}
	mayInterval := interval
	mayInterval.Optional = true
	return []*command{
		{
			Command: args.Command{
				Path: word("add"), Operands: []args.Operand{interval, start}, Options: level, Short: "Add " + what + ".",
			},
			run: func(c *call) error { return changeSchedule(c, prefix+" add", true) },
		},
		{
			Command: args.Command{
				Path: word("list"), Aliases: [][]string{word("ls")},
				Options: options(args.Option{Name: "recursive", Short: "R", Help: "list all schedules"}, formatOption, prettyOption),
				Short:   "List " + what + ".",
			},
			run: func(c *call) error { return listSchedules(c, prefix+" list", len(level) > len(poolOptions)) },
		},
		{
			Command: args.Command{
				Path: word("remove"), Aliases: [][]string{word("rm")}, Operands: []args.Operand{mayInterval, start},
				Options: level, Short: "Remove " + what + ".",
			},
			run: func(c *call) error { return changeSchedule(c, prefix+" remove", false) },
		},
		{
			Command: args.Command{
				Path: word("status"), Options: options(formatOption, prettyOption), Short: "Show " + what + " status.",
			},
			run: func(c *call) error {
				level, err := c.level()
				if err != nil {
					return err
				}
				if _, err := c.formatter(); err != nil {
					return err
				}
				if _, err := c.cluster.Connect(); err != nil {
					return err
				}
				out, err := c.mgr(prefix+" status", map[string]string{"level_spec": level})
				return status(c, out, err)
			},
		},
	}
}

// level is what a schedule is for, as the manager writes it: "", "POOL/",
// "POOL/NAMESPACE/", "POOL/IMAGE", "POOL/NAMESPACE/IMAGE". Without a pool it
// begins with the slash.
func (c *call) level() (string, error) {
	s := spec.Spec{Pool: c.String("pool"), Namespace: c.String("namespace")}
	switch {
	case c.IsSet("image"):
		parsed, err := spec.Parse(c.String("image"), c.names(spec.New))
		switch {
		case err != nil:
			return "", err
		case parsed.Snap != "":
			return "", errno.Errorf(syscall.EINVAL, "snapshot name specified for a command that doesn't use it")
		case parsed.Pool != "" && c.IsSet("pool"):
			return "", errno.Errorf(syscall.EINVAL, "pool is specified both via pool and image options")
		case parsed.Pool != "" && c.IsSet("namespace"):
			return "", errno.Errorf(syscall.EINVAL, "namespace is specified both via namespace and image options")
		case parsed.Pool != "":
			s.Pool, s.Namespace = parsed.Pool, parsed.Namespace
		}
		s.Image = parsed.Image
		if s.Namespace == "" {
			return s.Pool + "/" + s.Image, nil
		}
		return s.Pool + "/" + s.Namespace + "/" + s.Image, nil
	case c.IsSet("namespace"):
		return s.Pool + "/" + s.Namespace + "/", nil
	case c.IsSet("pool"):
		return s.Pool + "/", nil
	}
	return "", nil
}

// mgr sends a command to the manager. A level without a pool is given the
// default one.
func (c *call) mgr(prefix string, arguments map[string]string) ([]byte, error) {
	if _, err := c.cluster.Connect(); err != nil {
		return nil, err
	}
	if level := arguments["level_spec"]; strings.HasPrefix(level, "/") {
		arguments["level_spec"] = c.cluster.Config("rbd_default_pool") + level
	}
	return c.mgrCommand(prefix, prefix, arguments)
}

// mgrCommand sends a command to the manager; errors call it by that name.
func (c *call) mgrCommand(name, prefix string, arguments map[string]string) ([]byte, error) {
	conn, err := c.cluster.Connect()
	if err != nil {
		return nil, err
	}
	arguments["prefix"] = prefix
	command, err := json.Marshal(arguments)
	if err != nil {
		return nil, err
	}
	out, status, err := conn.MgrCommand([][]byte{command})
	if err != nil {
		line := name + " failed: " + errno.Text(errno.Code(err))
		if status != "" {
			line += ": " + status
		}
		return nil, &errno.Error{Code: errno.Code(err), Line: line, Err: err}
	}
	return out, nil
}

func changeSchedule(c *call, prefix string, needInterval bool) error {
	level, err := c.level()
	if err != nil {
		return err
	}
	arguments := map[string]string{"level_spec": level}
	interval := c.operand()
	if interval == "" && needInterval {
		return errno.Errorf(syscall.EINVAL, "missing 'interval' argument")
	}
	if interval != "" {
		arguments["interval"] = interval
		if start := c.operand(); start != "" {
			arguments["start_time"] = start
		}
	}
	out, err := c.mgr(prefix, arguments)
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(out)
	return err
}

// scheduleItem is one entry of a schedule.
type scheduleItem struct {
	Interval string  `json:"interval"`
	Start    *string `json:"start_time"`
}

func (i scheduleItem) start() string {
	if i.Start == nil {
		return ""
	}
	return *i.Start
}

func scheduleText(items []scheduleItem) string {
	var texts []string
	for _, i := range items {
		text := "every " + i.Interval
		if i.start() != "" {
			text += " starting at " + i.start()
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func writeSchedule(items []scheduleItem, f output.Formatter) {
	f.OpenArray("items")
	for _, i := range items {
		f.OpenObject("item")
		f.String("interval", i.Interval)
		f.String("start_time", i.start())
		f.Close()
	}
	f.Close()
}

func listSchedules(c *call, prefix string, images bool) error {
	level, err := c.level()
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	arguments := map[string]string{"level_spec": level}
	out, err := c.mgr(prefix, arguments)
	if err != nil {
		return err
	}
	var answer map[string]struct {
		Name     string         `json:"name"`
		Schedule []scheduleItem `json:"schedule"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return &errno.Error{Code: syscall.EBADMSG, Line: "invalid schedule list JSON received", Err: err}
	}
	schedules := make(map[string][]scheduleItem)
	for _, s := range answer {
		schedules[s.Name] = s.Schedule
	}
	if !c.Bool("recursive") {
		items, ok := schedules[arguments["level_spec"]]
		switch {
		case !ok:
			return &errno.Error{Code: syscall.ENOENT}
		case f == nil:
			fmt.Fprintln(c.stdout, scheduleText(items))
			return nil
		}
		writeSchedule(items, f)
		return f.Flush(c.stdout)
	}
	return printSchedules(c, schedules, images, f)
}

func printSchedules(c *call, schedules map[string][]scheduleItem, images bool, f output.Formatter) error {
	columns := []output.Column{{Heading: "POOL"}, {Heading: "NAMESPACE"}}
	if images {
		columns = append(columns, output.Column{Heading: "IMAGE"})
	}
	table := output.NewTable(append(columns, output.Column{Heading: "SCHEDULE"})...)
	if f != nil {
		f.OpenArray("schedules")
	}
	// What the name of a level is made of.
	levelName := regexp.MustCompile(`^(?:([^/]+)/(?:(?:([^/]+)/|)(?:([^/@]+))?)?)?$`)
	for _, name := range slices.Sorted(maps.Keys(schedules)) {
		match := levelName.FindStringSubmatch(name)
		if match == nil || !images && match[3] != "" {
			continue
		}
		pool, namespace, image := match[1], match[2], match[3]
		if namespace == "" && image == "" {
			namespace = "-"
		}
		for _, part := range []*string{&pool, &image} {
			if *part == "" {
				*part = "-"
			}
		}
		if f == nil {
			row := []string{pool, namespace}
			if images {
				row = append(row, image)
			}
			table.Row(append(row, scheduleText(schedules[name]))...)
			continue
		}
		f.OpenObject("schedule")
		f.String("pool", pool)
		f.String("namespace", namespace)
		if images {
			f.String("image", image)
		}
		writeSchedule(schedules[name], f)
		f.Close()
	}
	if f == nil {
		return table.Flush(c.stdout)
	}
	f.Close()
	return f.Flush(c.stdout)
}

// badStatus is the error of an answer of the mgr that cannot be read, or that
// is none as it has refused.
func badStatus(refused, err error) error {
	line := "invalid schedule status JSON received"
	if refused != nil {
		line = refused.Error() + "\nrbd: " + line
	}
	return &errno.Error{Code: syscall.EBADMSG, Line: line, Err: errors.Join(refused, err)}
}

// printScheduledImages shows when which image is due. When the manager has
// refused to say so, that its answer makes no sense is said, too, and gives the
// exit code, as in the genuine tool.
func printScheduledImages(c *call, out []byte, refused error) error {
	var answer struct {
		Images []struct {
			Time  string `json:"schedule_time"`
			Image string `json:"image"`
		} `json:"scheduled_images"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return badStatus(refused, err)
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	if f == nil {
		table := output.NewTable(output.Column{Heading: "SCHEDULE TIME"}, output.Column{Heading: "IMAGE"})
		for _, i := range answer.Images {
			table.Row(i.Time, i.Image)
		}
		return table.Flush(c.stdout)
	}
	f.OpenArray("scheduled_images")
	for _, i := range answer.Images {
		f.OpenObject("image")
		f.String("schedule_time", i.Time)
		f.String("image", i.Image)
		f.Close()
	}
	f.Close()
	return f.Flush(c.stdout)
}
