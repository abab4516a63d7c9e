package node

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A scenario is one run of the installer that is interrupted at every change
// of the file system, in every way that there is: see the tests below.
type scenario struct {
	name   string
	action string
	source string
	bare   string  // the node before the first installation
	start  string  // and before this run
	whole  string  // and after it, when nobody interrupts
	log    []noted // what the run changes then
}

// A noted change of a run. Not all work: a folder that others use stays.
type noted struct {
	change
	done bool
}

func scenarios(t *testing.T) []scenario {
	t.Helper()
	t.Setenv("TMPDIR", "/dev/shm") // some thousand trees: a disk's fsync takes a minute
	src := releases(t, "one", "two", "three")
	var all []scenario
	add := func(name, action, source, bare string, before ...string) {
		start := clone(t, bare)
		for _, b := range before {
			mustAct(t, "install", start, b)
		}
		whole := clone(t, start)
		var log []noted
		err := act(action, whole, source, nil, func(c change, do func() error) error {
			c.data = bytes.Clone(c.data)
			err := do()
			log = append(log, noted{c, err == nil})
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, scenario{name, action, source, bare, start, whole, log})
	}
	add("install on a bare node", "install", src[0], bare(t))
	add("install over files of others", "install", src[0], furnished(t))
	if !slices.ContainsFunc(all[1].log, func(n noted) bool { return n.op == "label" }) {
		t.Fatal("no label is set where the node has labels: does cp keep them?")
	}
	kept := furnished(t)
	put(t, kept, "etc/modules-load.d/rbd.conf"+beforeSuffix, "precious", 0o644)
	add("install over files that others have kept", "install", src[0], kept)
	add("upgrade that collects the first", "install", src[2], bare(t), src[0], src[1])
	add("rollback", "rollback", "/nowhere", furnished(t), src[0], src[1])
	add("uninstall of one release", "uninstall", src[0], furnished(t), src[0])
	add("uninstall of two releases", "uninstall", src[1], bare(t), src[0], src[1])
	return all
}

// after fails when an interrupted node is neither as before nor as after, or
// when the next run cannot finish or cannot take it all back.
func (s scenario) after(t *testing.T, root, how string) {
	t.Helper()
	s.checkWhole(t, root, how)

	back := clone(t, root)
	if err := act("uninstall", back, s.source, nil); err != nil {
		t.Fatalf("%s: uninstall after it: %v", how, err)
	}
	if diff := cmp.Diff(snapshot(t, s.bare), snapshot(t, back)); diff != "" {
		t.Fatalf("%s: uninstall after it:\n%s", how, diff)
	}

	switch s.action {
	case "install":
		if err := act("install", root, s.source, nil); err != nil {
			t.Fatalf("%s: install after it: %v", how, err)
		}
		if diff := cmp.Diff(layout(t, s.whole), layout(t, root)); diff != "" {
			t.Fatalf("%s: install after it:\n%s", how, diff)
		}
	case "rollback":
		// Once more is a way to the one before or back from there.
		if err := act("rollback", root, s.source, nil); err != nil {
			t.Fatalf("%s: rollback after it: %v", how, err)
		}
		if text, ok := status(t, root); !ok {
			t.Fatalf("%s: rollback after it:\n%s", how, text)
		}
		runs(t, root)
	case "uninstall":
		if err := act("install", root, s.source, nil); err != nil {
			t.Fatalf("%s: install after it: %v", how, err)
		}
		if text, ok := status(t, root); !ok {
			t.Fatalf("%s: install after it:\n%s", how, text)
		}
	}
	if err := act("uninstall", root, s.source, nil); err != nil {
		t.Fatalf("%s: uninstall at last: %v", how, err)
	}
	if diff := cmp.Diff(snapshot(t, s.bare), snapshot(t, root)); diff != "" {
		t.Fatalf("%s: uninstall at last:\n%s", how, diff)
	}
}

// checkWhole fails when a file is neither what it was nor what it will be.
func (s scenario) checkWhole(t *testing.T, root, how string) {
	t.Helper()
	for _, name := range []string{"/opt/bin/rbd", "/opt/rbd/current", "/etc/modules-load.d/rbd.conf", managerFile} {
		read := func(dir string) string {
			tr, err := openTree(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.root.Close()
			o, err := tr.look(name)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s %04o %s %s", o.Kind, o.Mode, o.Digest, o.Target)
		}
		if now := read(root); now != read(s.start) && now != read(s.whole) {
			t.Errorf("%s: %s is neither old nor new: %s", how, name, now)
		}
	}
	// Our launcher is there only when its payload is, and that one is whole.
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.root.Close()
	if o, err := tr.look("/opt/bin/rbd"); err != nil || o.Kind != file {
		return
	}
	current, err := tr.look("/opt/rbd/current")
	if err != nil || current.Kind != link {
		t.Errorf("%s: a launcher without payload: %v, %v", how, current, err)
		return
	}
	name := "/opt/rbd/" + current.Target
	if o, err := tr.lookPayload(name); err != nil || !strings.HasPrefix(o.Digest, filepath.Base(name)) {
		t.Errorf("%s: a launcher with half a payload: %v, %v", how, o, err)
	}
}

// interrupted runs every scenario with something that interrupts it at each of
// its changes, given by number, and prints how many these were.
func interrupted(t *testing.T, at func(t *testing.T, s scenario, root string, point int) bool) {
	t.Helper()
	points := 0
	t.Run("all", func(t *testing.T) {
		for _, s := range scenarios(t) {
			points += len(s.log)
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				for n := range len(s.log) + 1 {
					root := clone(t, s.start)
					if hit := at(t, s, root, n); hit != (n < len(s.log)) {
						t.Fatalf("interrupted at change %d: %v, of %d", n, hit, len(s.log))
					} else if hit {
						s.after(t, root, fmt.Sprintf("interrupted at change %d, %s", n, s.log[n]))
					}
					if err := os.RemoveAll(root); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	})
	fmt.Fprintf(os.Stderr, "%s: %d points of interruption tried\n", t.Name(), points)
}

// cut runs a command in a process of its own that is killed right after the
// given number of changes to the file system. It says whether it was.
func cut(t *testing.T, action, root, source string, after int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envAction+"="+action, envRoot+"="+root, envSource+"="+source, envAfter+"="+strconv.Itoa(after))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
		return true
	}
	t.Fatalf("%s killed after %d changes: %v: %s", action, after, err, out)
	return false
}

func TestKilledAnywhere(t *testing.T) {
	interrupted(t, func(t *testing.T, s scenario, root string, point int) bool {
		return cut(t, s.action, root, s.source, point)
	})
}

// A failure says which changes fail once one has failed.
type failure struct {
	name string
	then func(change) bool
}

var failures = []failure{
	{"once", func(change) bool { return false }},
	// On a full disk what takes no room still works.
	{"full from then on", func(c change) bool {
		return slices.Contains([]string{"mkdir", "create", "write", "symlink", "link"}, c.op)
	}},
	{"broken from then on", func(change) bool { return true }},
}

// fail runs an action whose change of that number fails, and says whether
// there was one. The reasons take turns: the installer does not ask which.
func (f failure) fail(t *testing.T, s scenario, root string, point int) bool {
	t.Helper()
	reasons := []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO}
	errno := reasons[point/len(failures)%len(reasons)]
	count, failed := 0, false
	err := act(s.action, root, s.source, nil, func(c change, do func() error) error {
		count++
		if count == point+1 || failed && f.then(c) {
			failed = true
			return errno
		}
		return do()
	})
	if err != nil && (!strings.Contains(err.Error(), errno.Error()) || strings.Contains(err.Error(), "\n")) {
		t.Errorf("%s, failed at change %d: got %q", f.name, point, err)
	}
	return failed
}

// TestErrorAnywhere lets each change fail: alone, or with all that follow. The
// ways take turns; each at every change is TestErrorAnywhereInEachWay.
func TestErrorAnywhere(t *testing.T) {
	interrupted(t, func(t *testing.T, s scenario, root string, point int) bool {
		return failures[point%len(failures)].fail(t, s, root, point)
	})
}
