package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/ceph"
)

// completeWord is the word by which the shells' functions in share/ ask what
// the last of the words behind it could become. The genuine tool has no such
// word, and none of its lines begins so.
const completeWord = "__complete"

// Exit code 3 says that the word may be the name of a file, too.
const completeFiles = 3

// completeTime is how long a person waits for names from the cluster.
const completeTime = 300 * time.Millisecond

// completion is a question of a shell.
type completion struct {
	cluster *ceph.Cluster
	w       io.Writer
	word    string // what is typed so far
	pool    string // of the option --pool, may be empty
	prefix  string // of names, that the word has already
	option  string // --NAME= where the word is that and a value
}

// complete prints what the last word could become, a line each: commands,
// options, their values, names of pools, namespaces, images and snapshots.
// What ends in "/" or "@" goes on.
func complete(w io.Writer, cluster *ceph.Cluster, words []string) int {
	if len(words) == 0 {
		return 0
	}
	// Names that do not come in time do not come.
	time.AfterFunc(completeTime, func() { os.Exit(0) })
	before, word := words[:len(words)-1], words[len(words)-1]
	c := &completion{cluster: cluster, w: w, word: word}
	values := map[string]bool{"--" + args.Timeout.Name: true} // options of any command that take a value
	for _, d := range Declarations() {
		for _, o := range d.Options {
			if o.Arg != "" {
				values["--"+o.Name] = true
				if o.Short != "" {
					values["-"+o.Short] = true
				}
			}
		}
	}
	var operands []string
	option := ""
	for i := 0; i < len(before); i++ {
		switch b := before[i]; {
		case values[b] && i == len(before)-1:
			option = strings.TrimLeft(b, "-")
		case values[b]:
			i++
			if b == "-p" || b == "--pool" {
				c.pool = before[i]
			}
		case strings.HasPrefix(b, "-"):
			if pool, ok := strings.CutPrefix(b, "--pool="); ok {
				c.pool = pool
			}
		default:
			operands = append(operands, b)
		}
	}
	command, name := findCommand(operands)
	switch {
	case option != "":
		return c.value(option)
	case strings.HasPrefix(word, "-"):
		if name, value, ok := strings.Cut(word, "="); ok && values[name] {
			c.option, c.word = name+"=", value
			return c.value(strings.TrimLeft(name, "-"))
		}
		c.options(command)
		return 0
	}
	c.commands(operands)
	if command == nil {
		return 0
	}
	if n := len(command.Operands); n > 0 {
		return c.operand(command.Operands[min(len(operands)-name, n-1)].Name)
	}
	return 0
}

// findCommand finds the command with the most words at the beginning of a
// line, and says how many those are.
func findCommand(words []string) (found *args.Command, length int) {
	for _, d := range Declarations() {
		for _, path := range append([][]string{d.Path}, d.Aliases...) {
			if len(path) > length && len(path) <= len(words) && slices.Equal(path, words[:len(path)]) {
				found, length = d, len(path)
			}
		}
	}
	return found, length
}

// offer prints candidates that begin as the word does.
func (c *completion) offer(candidates ...string) {
	slices.Sort(candidates)
	for _, text := range slices.Compact(candidates) {
		if text = c.prefix + text; strings.HasPrefix(text, c.word) {
			fmt.Fprintln(c.w, c.option+text)
		}
	}
}

func (c *completion) commands(words []string) {
	var next []string
	for _, d := range Declarations() {
		for _, path := range append([][]string{d.Path}, d.Aliases...) {
			if !d.Hidden && len(path) > len(words) && slices.Equal(path[:len(words)], words) {
				next = append(next, path[len(words)])
			}
		}
	}
	if len(words) == 0 {
		next = append(next, "help")
	}
	c.offer(next...)
}

func (c *completion) options(command *args.Command) {
	names := []string{"--help"}
	if command != nil {
		names = append(names, "--"+args.Timeout.Name)
		for _, o := range command.Options {
			if !o.Hidden && o.Name != args.Timeout.Name {
				names = append(names, "--"+o.Name)
			}
		}
	}
	c.offer(names...)
}

// value completes the value of an option.
func (c *completion) value(option string) int {
	switch option {
	case "format":
		c.offer("json", "plain", "xml")
	case "io-type":
		c.offer("read", "write", "readwrite", "rw")
	case "io-pattern":
		c.offer("rand", "seq", "full-seq")
	case "t", "device-type":
		c.offer("krbd", "nbd")
	case "image-feature":
		c.features()
	case "p", "pool", "dest-pool", "data-pool", "journal-pool":
		c.pools("")
	case "image", "dest":
		c.names("image-spec")
	}
	if strings.Contains(option, "path") || strings.Contains(option, "file") {
		return completeFiles
	}
	return 0
}

// operand completes an operand by what its declaration calls it.
func (c *completion) operand(name string) int {
	switch {
	case name == "features":
		c.features()
	case name == "pool-name":
		c.pools("")
	case strings.HasSuffix(name, "pool-spec"), strings.HasSuffix(name, "image-spec"), strings.HasSuffix(name, "snap-spec"):
		c.names(name)
	case strings.Contains(name, "path"), strings.Contains(name, "file"):
		return completeFiles
	case strings.HasPrefix(name, "image-or-snap-or-device"):
		c.names("snap-spec")
		return completeFiles
	}
	return 0
}

func (c *completion) features() {
	var names []string
	for _, b := range featureBits {
		names = append(names, b.name)
	}
	c.offer(names...)
}

func (c *completion) pools(end string) {
	conn, err := c.cluster.Connect()
	if err != nil {
		return
	}
	pools, err := conn.ListPools()
	if err != nil {
		return
	}
	for i := range pools {
		pools[i] += end
	}
	c.offer(pools...)
}

// names completes [POOL/[NAMESPACE/]]IMAGE[@SNAP], as far as kind goes: the
// name of an operand.
func (c *completion) names(kind string) {
	pool, namespace := c.pool, ""
	parts := strings.Split(c.word, "/")
	switch len(parts) {
	case 1:
		if c.pool == "" {
			c.pools("/")
		}
	case 2:
		pool = parts[0]
	case 3:
		pool, namespace = parts[0], parts[1]
	default:
		return
	}
	io, err := c.cluster.Pool(pool, namespace)
	if err != nil {
		return
	}
	c.prefix = strings.TrimSuffix(c.word, parts[len(parts)-1])
	if len(parts) == 2 {
		if names, err := rbd.NamespaceList(io); err == nil {
			for i := range names {
				names[i] += "/"
			}
			c.offer(names...)
		}
	}
	if strings.HasSuffix(kind, "pool-spec") {
		return
	}
	snaps := strings.HasSuffix(kind, "snap-spec")
	if image, _, ok := strings.Cut(parts[len(parts)-1], "@"); ok && snaps {
		c.snaps(io, image)
		return
	}
	images, err := rbd.GetImageNames(io)
	if err != nil {
		return
	}
	if snaps && kind == "snap-spec" {
		for i := range images {
			images[i] += "@"
		}
	}
	c.offer(images...)
}

func (c *completion) snaps(io *rados.IOContext, name string) {
	image, err := rbd.OpenImageReadOnly(io, name, rbd.NoSnapshot)
	if err != nil {
		return
	}
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == rbd.SnapNamespaceTypeUser })
	if err != nil {
		return
	}
	c.prefix += name + "@"
	c.offer(snapTitles(snaps)...)
}
