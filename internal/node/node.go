// Package node makes a node able to run rbd and takes that back again: the
// launcher, the payload, the kernel module, the PATH of systemd's services,
// the kubelet that has to see it, udev's rule and the units for boot and
// shutdown, on request the man page and completion.
//
// Everything is a step that looks, compares, applies and is looked at again.
// Plan only looks; Install applies what differs and proves it; a second
// Install finds nothing to do. A record of what was written and of what stood
// there before makes Uninstall exact, also after an interruption.
//
// It is not for making payloads (internal/payload) and not for running them
// (internal/launch).
package node

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/systemd"
)

// Options say which node and what to put there.
type Options struct {
	Root      string        // folder with the node's files; "/" is the running node, with its systemd and kernel
	Live      bool          // Root is the running node although it is not "/": its folders in a container
	Prefix    string        // PREFIX/bin gets the launcher, PREFIX/rbd the payload; empty for what suits the node
	Payload   string        // folder of this machine with payload.json and usr/
	Shim      string        // file of this machine that becomes PREFIX/bin/rbd
	Unit      string        // kubelet's unit; empty for the one of the installation, else one that the node has
	NoRestart bool          // files only: systemd and the kernel are left alone
	Timeout   time.Duration // longest wait for one job of systemd
	Force     bool          // install beside an rbd that the node has of its own
	Shell     bool          // also the man page and completion for shells, in PREFIX/share
	// RestartServer allows to restart a unit that is the API server, too.
	RestartServer bool
	// MayRestart is asked before kubelet is restarted, with the time at which an
	// installer last did that on this node, zero for never. An error ends the
	// installation there; the next one asks again. nil allows every restart.
	MayRestart func(last time.Time) error
	// Say tells a person what was done, one line a call.
	Say func(format string, args ...any)
}

// A Node is one node, looked at or worked on. Close it after use.
type Node struct {
	Options
	tree    *tree
	record  *record  // nil while nothing is installed
	next    release  // what Install brings about
	systemd *manager // nil where only files count
}

// Open reads what is installed and connects to systemd where it is needed.
func Open(ctx context.Context, o Options) (*Node, error) {
	if o.Root == "" {
		return nil, errors.New("--root is empty: give the folder with the node's files")
	}
	if o.Prefix != "" && !usablePrefix(o.Prefix) {
		return nil, fmt.Errorf("cannot use %q as --prefix: give an absolute folder such as /opt, of letters, digits and ._+@-", o.Prefix)
	}
	o.Timeout = cmp.Or(o.Timeout, 90*time.Second)
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	o.Root = root
	n := &Node{Options: o}
	if n.tree, err = openTree(root); err != nil {
		return nil, err
	}
	if n.Prefix == "" {
		if n.Prefix, err = choosePrefix(n.tree); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	n.Prefix = path.Clean(n.Prefix)
	if n.tree.labels, err = readLabels(n.tree, n.Prefix, n.live()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if n.record, err = readRecord(n.tree, n.Prefix); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if n.Unit == "" && n.record != nil {
		n.Unit = n.record.Unit
	}
	if n.Unit != "" && path.Ext(n.Unit) == "" {
		n.Unit += ".service"
	}
	if n.live() && !o.NoRestart {
		if _, err := os.Stat("/run/systemd/system"); err != nil && n.Root == "/" { // the test of sd_booted(3)
			return nil, errors.Join(errors.New("systemd does not run here: --no-restart puts the files in place and leaves the rest to you"), n.Close())
		}
		if n.systemd, err = dialManager(ctx, root, o.Timeout); err != nil {
			return nil, errors.Join(err, n.Close())
		}
		if n.Unit == "" {
			if n.Unit, err = n.systemd.findUnit(ctx); err != nil {
				return nil, errors.Join(err, n.Close())
			}
		}
	}
	n.Unit = cmp.Or(n.Unit, KubeletUnits[0])
	return n, nil
}

// usablePrefix says whether a folder can stand in units, in udev's rules and in
// PATH as it is: each of them has other characters that mean something.
func usablePrefix(dir string) bool {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+@-"
	return path.IsAbs(dir) && path.Clean(dir) != "/" && strings.Trim(dir, plain) == ""
}

// Close frees what Open took.
func (n *Node) Close() error {
	if n.systemd != nil {
		n.systemd.close()
	}
	return n.tree.root.Close()
}

// live says whether this is the running node and not a folder with one.
func (n *Node) live() bool      { return n.Live || n.Root == "/" }
func (n *Node) bin() string     { return path.Join(n.Prefix, "bin") }
func (n *Node) command() string { return path.Join(n.bin(), "rbd") }

// steps returns what this node needs, in the order in which it is made.
func (n *Node) steps(ctx context.Context) ([]step, error) {
	// Two would take the settings of systemd and udev from each other.
	if prefix, err := installedIn(n.tree); err != nil || prefix != "" && prefix != n.Prefix {
		return nil, cmp.Or(err, fmt.Errorf("cannot install in %s beside the installation in %s: uninstall that first", n.Prefix, prefix))
	}
	manifest, err := n.fits()
	if err != nil {
		return nil, err
	}
	servicePath, after, needed, err := n.servicePath(ctx)
	if err != nil {
		return nil, err
	}
	launcher, err := launcherID(n.Shim)
	if err != nil {
		return nil, err
	}
	n.next = release{manifest.ID, launcher}
	steps := []step{
		n.unitFile(systemd.Shutdown), // not enabled before the command is there
		payloadStep{placed{n.version(manifest.ID)}, n.Payload, manifest},
		program(n.launcher(launcher), n.Shim),
		symlink(n.current(), path.Join("versions", manifest.ID)),
		program(n.command(), n.Shim),
	}
	steps = append(steps, n.labelSteps()...)
	steps = append(steps, n.commandSteps()...)
	steps = append(steps, n.parts()...)
	shell, err := n.shellParts()
	if err != nil {
		return nil, err
	}
	steps = append(steps, shell...)
	if needed {
		steps = append(steps, textFile(managerFile, systemd.Manager(quoted(servicePath))))
	}
	steps = append(steps, n.liveSteps(after)...)
	steps = append(steps, collectStep{next: n.next})
	return append([]step{recordStep{placed{recordPath(n.Prefix)}, steps}}, steps...), nil
}

// labelSteps look after labels where there are any, before a service runs what
// has them.
func (n *Node) labelSteps() []step {
	if n.tree.labels == nil {
		return nil
	}
	return []step{labelStep{}}
}

// commandSteps prove the command, before systemd hears of it.
func (n *Node) commandSteps() []step {
	if n.systemd == nil && n.Root != "/" {
		return nil
	}
	return []step{commandStep{path: n.command()}}
}

// liveSteps are those that have to do with systemd, as it runs or as it will
// start.
func (n *Node) liveSteps(after setting) []step {
	if n.systemd == nil {
		return []step{pathFilesStep{after: after}}
	}
	return []step{moduleStep{}, pathStep{after}, kubeletStep{}, serviceStep{}, shutdownStep{}}
}

// facts are those of the installation that the record tells of, and of the
// node around it.
func (n *Node) facts() (files, live []fact, err error) {
	_, after, err := managerPaths(n.tree)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range n.record.Entries {
		files = append(files, installed{placed{e.Path}, e})
	}
	for _, s := range slices.Concat(n.labelSteps(), n.commandSteps(), n.liveSteps(after)) {
		live = append(live, s)
	}
	return files, live, nil
}

// servicePath returns the PATH that all services are to get: the one that
// holds without us, with our folder last. needed is false where that is there
// already.
func (n *Node) servicePath(ctx context.Context) (value string, after setting, needed bool, err error) {
	base, after, err := managerPaths(n.tree)
	if err != nil {
		return "", after, false, err
	}
	value = base.path
	now, err := n.tree.look(managerFile)
	if err != nil {
		return "", after, false, err
	}
	e := n.entry(managerFile)
	ours := e != nil
	if !ours && now.Kind == file {
		if ours, err = lostRecord(n.tree, n.Prefix); err != nil {
			return "", after, false, err
		}
	}
	if value == "" && ours && (e == nil || now.same(e.Wrote)) {
		// Ours already says what held before it came.
		text, err := n.tree.read(managerFile)
		if err != nil {
			return "", after, false, named(managerFile, err)
		}
		value, _, _ = lastPath(string(text), "")
	}
	if value == "" && n.systemd != nil {
		env, err := n.systemd.environment(ctx)
		if err != nil {
			return "", after, false, err
		}
		value, _ = pathOf(env)
		value = literal(value)
	}
	value = cmp.Or(value, defaultPath)
	needed = ours || !inPath(value, n.bin())
	return withFolder(value, n.bin()), after, needed, nil
}

func (n *Node) entry(name string) *entry {
	if n.record == nil {
		return nil
	}
	return n.record.find(name)
}

// fits says why this payload cannot run on this node.
func (n *Node) fits() (*payload.Manifest, error) {
	manifest, err := payload.Read(n.Payload)
	if err != nil {
		return nil, err
	}
	shim, err := elf.Open(n.Shim)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no launcher at %s: name it with --shim", n.Shim)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not a launcher: %w", n.Shim, err)
	}
	defer shim.Close()
	if machine := shim.Machine.String(); machine != manifest.Machine {
		return nil, fmt.Errorf("the launcher %s is for %s, the payload %s for %s", n.Shim, machine, n.Payload, manifest.Machine)
	}
	if here := machines[runtime.GOARCH]; n.live() && here.String() != manifest.Machine {
		return nil, fmt.Errorf("the payload %s is for %s, this machine is %s", n.Payload, manifest.Machine, here)
	}
	for _, dir := range []string{"/bin", "/lib", "/lib64"} {
		o, err := n.tree.look(dir)
		if err != nil {
			return nil, err
		}
		if o.Kind == folder {
			return nil, fmt.Errorf("%s is a folder of its own, not a link to usr%s: the launcher needs a merged /usr", dir, dir)
		}
	}
	return manifest, nil
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// Plan writes the difference between the node and what Install would make of
// it, as a unified diff per file and the actions in order. It changes
// nothing and says whether there is anything to do.
func (n *Node) Plan(ctx context.Context, w io.Writer) (pending bool, err error) {
	if left, err := n.leave(); err != nil || left {
		return false, err
	}
	steps, err := n.steps(ctx)
	if err != nil {
		return false, err
	}
	var todo []string
	for _, s := range steps {
		st, err := s.check(ctx, n)
		if err != nil {
			return false, err
		}
		if st.ok {
			continue
		}
		fmt.Fprint(w, st.diff)
		todo = append(todo, fmt.Sprintf("%s (%s)", st.todo, st.why))
	}
	for i, line := range todo {
		fmt.Fprintf(w, "%d. %s\n", i+1, line)
	}
	if len(todo) == 0 {
		fmt.Fprintln(w, "nothing to do")
	}
	return len(todo) > 0, nil
}

// Install makes the node what it should be and proves it. A cancelled context
// ends it between two steps or in a wait; nothing is taken back.
func (n *Node) Install(ctx context.Context) error {
	return n.change(ctx, "install", n.install)
}

// change does something to the node that nobody else may be doing to it.
func (n *Node) change(ctx context.Context, what string, do func(context.Context) error) error {
	if n.live() && os.Geteuid() != 0 {
		return fmt.Errorf("only root can %s: run it with sudo", what)
	}
	unlock, err := n.tree.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// Somebody may have had the lock since the record was read.
	if n.record, err = readRecord(n.tree, n.Prefix); err != nil {
		return err
	}
	err = do(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted: run install again to finish, or uninstall to take it back")
	}
	return err
}

func (n *Node) install(ctx context.Context) error {
	if left, err := n.leave(); err != nil || left {
		return err
	}
	start := time.Now()
	steps, err := n.steps(ctx)
	if err != nil {
		return err
	}
	states, err := n.ready(ctx, steps)
	if err != nil {
		return err
	}
	changed := false
	for _, s := range steps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		st, known := states[s.name()]
		if !known {
			if st, err = s.check(ctx, n); err != nil {
				return err
			}
		}
		if st.ok {
			n.tell(s, st)
			continue
		}
		began := time.Now()
		done, err := s.apply(ctx, n)
		if err != nil {
			return err
		}
		if st, err = s.check(ctx, n); err != nil {
			return err
		}
		if !st.ok {
			return fmt.Errorf("%s: %s, and stays so: %s", s.name(), st.word, st.why)
		}
		changed = true
		n.Say("%s (%s)", done, took(began))
		n.tell(s, st)
	}
	if n.record != nil && (!n.record.Complete || n.record.Release != n.next || n.record.Unit != n.Unit) {
		n.record.turnTo(n.next)
		n.record.Complete, n.record.Unit = true, n.Unit
		if err := n.record.save(n.tree); err != nil {
			return err
		}
	}
	if !changed {
		n.Say("nothing to do, all is in place (%s)", took(start))
		return nil
	}
	n.Say("installed (%s)", took(start))
	return nil
}

func (n *Node) tell(s step, st state) {
	if st.tell {
		n.Say("%s: %s", s.name(), st.why)
	}
}

// ready looks at what is put in the file system, and sees to it that nothing
// fails for a reason that can be known before the first change.
func (n *Node) ready(ctx context.Context, steps []step) (map[string]state, error) {
	states := map[string]state{}
	writes := []string{recordPath(n.Prefix)}
	for _, s := range steps {
		placed, ok := s.(interface{ place() string })
		if !ok {
			continue
		}
		st, err := s.check(ctx, n)
		if err != nil {
			return nil, err
		}
		states[s.name()] = st
		if !st.ok {
			writes = append(writes, placed.place())
		}
	}
	if len(writes) == 1 {
		return states, nil
	}
	if err := n.executable(); err != nil {
		return nil, err
	}
	for _, name := range writes {
		if _, err := n.tree.missing(path.Dir(name)); err != nil {
			return nil, err
		}
		if err := n.tree.writable(name); err != nil {
			return nil, err
		}
	}
	return states, sweep(n.tree, n.Prefix)
}

// Uninstall takes back what the record says, last first, and restores what
// stood there before. The running kubelet and the loaded module are left
// alone: disks may be in use.
func (n *Node) Uninstall(ctx context.Context) error {
	return n.change(ctx, "uninstall", n.uninstall)
}

func (n *Node) uninstall(ctx context.Context) error {
	start := time.Now()
	if err := sweep(n.tree, n.Prefix); err != nil {
		return err
	}
	if n.record == nil {
		if lost, err := lostRecord(n.tree, n.Prefix); err != nil || lost {
			return cmp.Or(err, fmt.Errorf("%s is lost: run install, which writes it again, then uninstall", recordPath(n.Prefix)))
		}
		n.Say("nothing is installed in %s", n.Prefix)
		return nil
	}
	if n.live() {
		if mapped, _ := os.ReadDir("/sys/bus/rbd/devices"); len(mapped) > 0 {
			n.Say("%d rbd devices are mapped: without %s kubelet cannot unmap them", len(mapped), n.command())
		}
	}
	files, live, err := n.facts()
	if err != nil {
		return err
	}
	slices.Reverse(files)
	// The command goes before what it runs: no upgrade must turn that about. At
	// last goes what says where all that is.
	rank := func(f fact) int {
		switch {
		case f.name() == shutdownFile:
			return 2
		case strings.HasPrefix(f.name(), home(n.Prefix)+"/"):
			return 1
		}
		return 0
	}
	slices.SortStableFunc(files, func(a, b fact) int { return cmp.Compare(rank(a), rank(b)) })
	if err := n.undo(ctx, files); err != nil {
		return err
	}
	inner := path.Dir(n.record.path) + "/"
	for _, dir := range slices.Backward(n.record.Folders) {
		if strings.HasPrefix(inner, dir+"/") {
			continue // the record stands in it
		}
		if _, err := n.tree.rmdir(dir); err != nil {
			return err
		}
	}
	if err := n.undo(ctx, live); err != nil {
		return err
	}
	if err := n.record.drop(n.tree); err != nil {
		return err
	}
	n.record = nil
	n.Say("uninstalled (%s)", took(start))
	if n.live() {
		n.Say("a running kubelet and the loaded module are left as they are until their next start")
	}
	return nil
}

func (n *Node) undo(ctx context.Context, facts []fact) error {
	for _, f := range facts {
		began := time.Now()
		done, err := f.undo(ctx, n)
		if err != nil {
			return err
		}
		if done != "" {
			n.Say("%s (%s)", done, took(began))
		}
	}
	return nil
}

// took says how long something took, for a person.
func took(since time.Time) string {
	d := time.Since(since)
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
