// Package rbdmap is the command rbdmap: images that are mapped and mounted at
// boot and given back at shutdown, from the table /etc/ceph/rbdmap. What it
// does with a table is what rbdmap(8) of Ceph does, without a shell: a node may
// have none, and no line of a table is ever one of a script.
//
// Its own addition is shutdown, which gives back all that is mapped, by
// whomever, within a bounded time. The mapping itself is the rbd command's.
package rbdmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// Table is where the table stands unless RBDMAPFILE says otherwise.
const Table = "/etc/ceph/rbdmap"

// Hooks has a program for each image with something to do after its mapping
// and before its unmapping: POOL/[NAMESPACE/]IMAGE, called with map or unmap
// and the link below /dev/rbd.
const Hooks = "/etc/ceph/rbd.d"

// links is where udev's rule puts a link for each image.
const links = "/dev/rbd"

const usage = "Usage: rbdmap map | unmap | unmap-all | shutdown\n"

// Command is one run.
type Command struct {
	Stdout, Stderr io.Writer
	failed         int
}

// Run does what args say and returns the exit code: how many images failed.
// An unknown word or a missing table is none, as with the genuine script.
func (c *Command) Run(args []string) int {
	word := ""
	if len(args) > 0 {
		word = args[0]
	}
	if word == "shutdown" {
		return c.shutdown()
	}
	name := os.Getenv("RBDMAPFILE")
	if name == "" {
		name = Table
	}
	// As the genuine script has it; and a pipe would be waited for.
	if info, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		c.warn("no table at %s", name)
		return 0
	}
	text, err := os.ReadFile(name)
	if err != nil {
		c.warn("%v", err)
		return 1
	}
	switch word {
	case "map":
		for image := range parse(string(text)) {
			c.mapImage(image)
		}
	case "unmap":
		for image := range parse(string(text)) {
			c.unmapImage(image)
		}
	case "unmap-all":
		for _, d := range c.devices() {
			if name := linkOf(d.Path); name != "" {
				c.hook(name, "unmap")
			}
			c.giveBack(d)
		}
	default:
		fmt.Fprint(c.Stdout, usage)
	}
	// More would be another number: an exit code has 8 bits.
	return min(c.failed, 255)
}

func (c *Command) warn(format string, args ...any) {
	fmt.Fprintf(c.Stderr, "rbdmap: "+format+"\n", args...)
}

func (c *Command) fail(format string, args ...any) {
	c.failed++
	c.warn(format, args...)
}

// An image is a line of the table.
type image struct {
	name    string // POOL/[NAMESPACE/]IMAGE[@SNAP]
	options []string
}

// parse yields the images of a table.
func parse(text string) func(yield func(image) bool) {
	return func(yield func(image) bool) {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			name, rest := line, ""
			if i := strings.IndexAny(line, " \t"); i > 0 {
				name, rest = line[:i], line[i:]
			}
			if !strings.Contains(name, "/") {
				name = "rbd/" + name
			}
			if !yield(image{name, options(strings.TrimSpace(rest))}) {
				return
			}
		}
	}
}

// options turns PARAM=VALUE,PARAM=VALUE into rbd's options. Between ' a comma
// and an equals sign are themselves, a # ends the line anywhere, and white
// space separates arguments, also between '.
func options(params string) []string {
	params, _, _ = strings.Cut(params, "#")
	if params == "" {
		return nil
	}
	var line strings.Builder
	start, quoted := true, false
	for _, c := range params {
		switch {
		case c == '\'':
			quoted = !quoted
		case c == '=' && !quoted:
			line.WriteByte(' ')
			continue
		case c == ',' && !quoted:
			line.WriteString(" --")
		default:
			// What begins with a ' gets no --, in the genuine script too.
			if start {
				line.WriteString("--")
			}
			line.WriteRune(c)
		}
		start = false
	}
	return strings.Fields(line.String())
}

// mapImage maps and mounts one image; one that is mapped is left as it is.
func (c *Command) mapImage(i image) {
	link := filepath.Join(links, i.name)
	if isBlock(link) {
		return
	}
	if out, err := rbd(append([]string{"device", "map", i.name}, i.options...)...).CombinedOutput(); err != nil {
		c.fail("cannot map %s: %s", i.name, said(out, err))
		return
	}
	// Only what /etc/fstab has is mounted: --fake asks it.
	if exec.Command("mount", "--fake", "--", link).Run() == nil {
		if out, err := exec.Command("mount", "-n", "--", link).CombinedOutput(); err != nil {
			c.warn("cannot mount %s: %s", link, said(out, err))
		}
	}
	c.hook(i.name, "map")
}

// unmapImage unmounts and unmaps an image of the table, if it is mapped.
func (c *Command) unmapImage(i image) {
	path, err := filepath.EvalSymlinks(filepath.Join(links, i.name))
	if err != nil || !isBlock(path) {
		return
	}
	c.hook(i.name, "unmap")
	for _, d := range c.devices() {
		if d.Path == path {
			c.giveBack(d)
		}
	}
}

// giveBack unmounts and unmaps a device.
func (c *Command) giveBack(d krbd.Device) {
	if err := release(context.Background(), d); err != nil {
		c.fail("%v", err)
	}
}

func (c *Command) devices() []krbd.Device {
	list, err := krbd.Host{}.List()
	if err != nil {
		c.fail("cannot tell what is mapped: %v", err)
	}
	return list
}

// hook runs the program of an image, if there is one.
func (c *Command) hook(name, what string) {
	program := filepath.Join(Hooks, name)
	if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
		return
	}
	cmd := exec.Command(program, what, filepath.Join(links, name))
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if err := cmd.Run(); err != nil {
		c.warn("%s %s: %v", program, what, err)
	}
}

// linkOf returns the name below /dev/rbd of a device, "" for none.
func linkOf(device string) (name string) {
	_ = filepath.WalkDir(links, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return nil //nolint:nilerr // a link that has just gone is no link
		}
		if target, err := filepath.EvalSymlinks(path); err == nil && target == device {
			name = strings.TrimPrefix(path, links+"/")
			return fs.SkipAll
		}
		return nil
	})
	return name
}

func isBlock(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
}

// release unmounts a device wherever it is mounted, the last mount first, and
// unmaps it. Commands do that: a call to the kernel may never come back once
// the cluster is gone, and a process can be left to itself.
func release(ctx context.Context, d krbd.Device) error {
	list, err := mounts("/proc/self/mountinfo", d.Path)
	if err != nil {
		return err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if err := within(ctx, exec.Command("umount", "--", list[i])); err != nil {
			return fmt.Errorf("cannot unmount %s from %s: %w", d.Path, list[i], err)
		}
	}
	return unmap(ctx, d)
}

func unmap(ctx context.Context, d krbd.Device, options ...string) error {
	if err := within(ctx, rbd(append([]string{"device", "unmap", d.Path}, options...)...)); err != nil {
		return fmt.Errorf("cannot unmap %s: %w", d.Path, err)
	}
	return nil
}

// rbd is the launcher itself under its first name.
func rbd(args ...string) *exec.Cmd {
	return &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{"rbd"}, args...)}
}

// within runs a command for as long as ctx lasts. One that hangs in the kernel
// is left behind.
func within(ctx context.Context, cmd *exec.Cmd) error {
	// systemd waits at the end of a shutdown for what it kills, and does not
	// kill what has this name: see systemd.io/ROOT_STORAGE_DAEMONS.
	cmd.Args[0] = "@" + cmd.Args[0]
	out := make(chan string, 1)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	if closed := w.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, 4096))
		out <- string(b)
		ended <- cmd.Wait()
	}()
	select {
	case text := <-out:
		if err := <-ended; err != nil {
			return errors.New(strings.TrimPrefix(said([]byte(text), err), "@"))
		}
		return nil
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		return errors.New("no end of it; is the cluster gone?")
	}
}

// said is what a command that failed had to say, on one line.
func said(out []byte, err error) string {
	if text := bytes.TrimSpace(out); len(text) > 0 {
		return strings.ReplaceAll(string(text), "\n", "; ")
	}
	return err.Error()
}

// How long a shutdown waits: for what uses a device to end by itself, from
// then on until it is killed, and for the kernel to let go by force. The unit
// that runs it gives it longer than all of these together.
const (
	patience = 20 * time.Second
	grace    = 5 * time.Second
	force    = 10 * time.Second
)
