package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A release is what runs: a payload and the launcher that starts it, each
// named by its content. The node keeps the one that is current, the one
// before, and those that processes still run from.
type release struct {
	Payload  string `json:"payload"`  // folder in PREFIX/rbd/versions
	Launcher string `json:"launcher"` // file in PREFIX/rbd/launchers
}

func (n *Node) version(id string) string  { return path.Join(home(n.Prefix), "versions", id) }
func (n *Node) launcher(id string) string { return path.Join(home(n.Prefix), "launchers", id) }
func (n *Node) current() string           { return path.Join(home(n.Prefix), "current") }

// UsePrevious makes the release before the current one that which Plan and
// Install bring about. It is on the node already.
func (n *Node) UsePrevious() error {
	if n.record == nil {
		return fmt.Errorf("nothing is installed in %s", n.Prefix)
	}
	r := n.record.Previous
	if r == nil {
		return errors.New("this node has no release before the current one: install the one that you want")
	}
	for name, to := range map[string]*string{n.version(r.Payload): &n.Payload, n.launcher(r.Launcher): &n.Shim} {
		if have, err := n.tree.look(name); err != nil || have.Kind == absent {
			return errors.Join(err, fmt.Errorf("%s is gone: install the release that you want", name))
		}
		rel, err := n.tree.resolve(name, false)
		if err != nil {
			return named(name, err)
		}
		*to = filepath.Join(n.Root, rel)
	}
	// The payload is compared with its manifest as any other is.
	if id, err := launcherID(n.Shim); err != nil || id != r.Launcher {
		return errors.Join(err, fmt.Errorf("%s is not what it was: install the release that you want", n.launcher(r.Launcher)))
	}
	return nil
}

func launcherID(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", named(file, err)
	}
	defer f.Close()
	sum, err := digest(f)
	if err != nil {
		return "", named(file, err)
	}
	return sum[:12], nil
}

// turnTo notes that a release is about to become the current one. The one
// that it follows is kept, unless it was never installed to the end.
func (r *record) turnTo(next release) {
	if r.Release == next {
		return
	}
	switch {
	case r.Complete:
		last := r.Release
		r.Previous = &last
	case r.Previous != nil && *r.Previous == next:
		r.Previous = nil
	}
	r.Release = next
	for _, e := range r.Entries {
		switch {
		case e.Wrote.Kind != payloadFolder:
		case r.keeps(e.Path):
			e.Left = ""
		case e.Left == "":
			e.Left = bootID()
		}
	}
}

// keeps says whether a path is of the current release or the one before.
func (r *record) keeps(name string) bool {
	id := path.Base(name)
	kept := []release{r.Release}
	if r.Previous != nil {
		kept = append(kept, *r.Previous)
	}
	return slices.ContainsFunc(kept, func(k release) bool { return k.Payload == id || k.Launcher == id })
}

// lost says whether the release before the current one is not all there any
// more: nothing to go back to.
func (r *record) lost(n *Node) bool {
	if r.Previous == nil {
		return false
	}
	for _, name := range []string{n.version(r.Previous.Payload), n.launcher(r.Previous.Launcher)} {
		e := r.find(name)
		if e == nil {
			return true
		}
		if st, err := (installed{placed{name}, e}).check(context.Background(), n); err == nil && !st.ok {
			return true
		}
	}
	return false
}

// collectStep removes the releases that are neither current nor the one
// before and that nothing runs from any more.
type collectStep struct {
	lasting
	next release
}

func (collectStep) name() string { return "old releases" }

func (s collectStep) check(_ context.Context, n *Node) (state, error) {
	old, kept, err := s.old(n)
	switch {
	case err != nil:
		return state{}, err
	case len(old) > 0:
		return state{word: "changed", why: "nothing runs from it", todo: "remove " + strings.Join(old, " and ")}, nil
	case len(kept) > 0:
		return proof(strings.Join(kept, ", ")), nil
	}
	return good("none"), nil
}

func (s collectStep) apply(_ context.Context, n *Node) (string, error) {
	old, _, err := s.old(n)
	if err != nil {
		return "", err
	}
	for _, name := range old {
		if _, err := n.record.takeBack(n.tree, name); err != nil {
			return "", err
		}
		n.record.forget(name)
	}
	if n.record.lost(n) {
		n.record.Previous = nil
	}
	return strings.Join(old, " and ") + " removed", n.record.save(n.tree)
}

// old returns the paths that can go once next is current, and says why the
// others cannot.
func (s collectStep) old(n *Node) (old, kept []string, err error) {
	if n.record == nil {
		return nil, nil, nil
	}
	then := n.record.clone()
	then.turnTo(s.next)
	if then.lost(n) {
		then.Previous = nil
	}
	for _, e := range then.Entries {
		switch dir := path.Dir(e.Path); {
		case then.keeps(e.Path):
		case dir == path.Dir(n.launcher("x")):
			old = append(old, e.Path) // runs for milliseconds, and needs no file but itself
		case dir == path.Dir(n.version("x")):
			pid, err := runsFrom(path.Base(e.Path))
			switch {
			case err == nil && pid == 0:
				old = append(old, e.Path)
			case err == nil:
				kept = append(kept, fmt.Sprintf("%s is kept, pid %d runs from it", e.Path, pid))
			case !errors.Is(err, errHidden):
				return nil, nil, err
			case e.Left == "" || e.Left == bootID():
				kept = append(kept, fmt.Sprintf("%s is kept until the node has booted again: %v", e.Path, err))
			default:
				old = append(old, e.Path) // no process is older than the boot
			}
		}
	}
	return old, kept, nil
}

// errHidden says that /proc does not show what all of the node's processes
// run from.
var errHidden = errors.New("the node's processes cannot be seen")

// runsFrom returns a process that runs from a payload, 0 when none does. The
// launcher's processes have the payload's /usr as a mount of their own, whose
// origin mountinfo names; those of ordinary users, which cannot mount, map
// the payload's files by their full path.
func runsFrom(id string) (pid int, err error) {
	// The first PID namespace has a fixed number (PROC_PID_INIT_INO of the
	// kernel's proc_ns.h); in another one most processes are not to be seen.
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != "pid:[4026531836]" {
		return 0, errHidden
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, errHidden
	}
	mark := []byte("/versions/" + id + "/")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == 1 { // init, which may be closed to root too
			continue
		}
		for _, file := range []string{"mountinfo", "maps"} {
			text, err := os.ReadFile(filepath.Join("/proc", p.Name(), file))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
				break // ended meanwhile, or a zombie without mounts
			}
			if err != nil {
				return 0, errHidden
			}
			if bytes.Contains(text, mark) {
				return pid, nil
			}
		}
	}
	return 0, nil
}

// bootID names the time since the last boot; "" where the kernel does not say.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}
