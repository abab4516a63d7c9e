package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/systemd"
)

// The test binary is also the installer that is killed: see cut.
const (
	envAction = "OPT_RBD_TEST_ACTION"
	envRoot   = "OPT_RBD_TEST_ROOT"
	envSource = "OPT_RBD_TEST_SOURCE"
	envAfter  = "OPT_RBD_TEST_AFTER"
)

func TestMain(m *testing.M) {
	action := os.Getenv(envAction)
	if action == "" {
		os.Exit(m.Run())
	}
	left, err := strconv.Atoi(os.Getenv(envAfter))
	if err != nil {
		panic(err)
	}
	around := func(_ change, do func() error) error {
		err := do()
		if left--; left < 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
		return err
	}
	if action == "lock" { // hold it until killed
		tr, err := openTree(os.Getenv(envRoot))
		if err == nil {
			_, err = tr.lock()
		}
		if err != nil {
			panic(err)
		}
		select {}
	}
	if err := act(action, os.Getenv(envRoot), os.Getenv(envSource), nil, around); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// act runs one command of the installer on a folder.
func act(action, root, source string, say func(string, ...any), around ...func(change, func() error) error) error {
	ctx := context.Background()
	n, err := Open(ctx, options(root, source, say))
	if err != nil {
		return err
	}
	defer n.Close()
	for _, a := range around {
		n.tree.around = a
	}
	switch action {
	case "uninstall":
		return n.Uninstall(ctx)
	case "rollback":
		if err := n.UsePrevious(); err != nil {
			return err
		}
	}
	return n.Install(ctx)
}

func options(root, source string, say func(string, ...any)) Options {
	return Options{
		Root: root, Prefix: "/opt", Unit: "kubelet.service",
		Payload: filepath.Join(source, "payload"), Shim: filepath.Join(source, "shim"), Say: say,
	}
}

// source makes what the installer carries: a payload and a launcher. The
// installer looks at nothing in them but the manifest and the ELF headers, so
// a system program stands for both; the real ones are installed in a real
// node by the tests there.
func source(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile("/usr/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "shim", string(program), 0o755)
	put(t, dir, "payload/usr/bin/rbd", string(program), 0o755)
	put(t, dir, "payload/usr/lib/libtext.so.1.0", text, 0o644)
	put(t, dir, "payload/usr/lib/ld-2.31.so", "", 0o755)
	if err := os.Symlink("libtext.so.1.0", filepath.Join(dir, "payload/usr/lib/libtext.so.1")); err != nil {
		t.Fatal(err)
	}
	manifest, err := payload.Scan(os.DirFS(filepath.Join(dir, "payload")))
	if err != nil {
		t.Fatal(err)
	}
	manifest.Machine = machines[runtime.GOARCH].String()
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "payload/"+payload.ManifestName, string(data), 0o644)
	return dir
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	if err := os.Chtimes(name, past, past); err != nil {
		t.Fatal(err)
	}
}

// bare is a node with next to nothing: not even /opt.
func bare(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/lib", "etc", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "lib"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// furnished is a node on which somebody else's things stand in every place,
// with labels of SELinux on all of them.
func furnished(t *testing.T) string {
	t.Helper()
	root := bare(t)
	put(t, root, "var/opt/bin/other", "#!/bin/sh\n", 0o755)
	put(t, root, "usr/lib/rbd-of-old", "#!/bin/sh\nexec docker run ceph rbd \"$@\"\n", 0o755)
	for target, name := range map[string]string{"/var/opt": "opt", "/usr/lib/rbd-of-old": "var/opt/bin/rbd"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, root, "etc/modules-load.d/rbd.conf", "rbd\nnbd\n", 0o640)
	if err := os.Chown(filepath.Join(root, "etc/modules-load.d/rbd.conf"), 7, 8); err != nil {
		t.Fatal(err)
	}
	put(t, root, "usr/lib64/ld-linux-x86-64.so.2", "", 0o755)
	put(t, root, "etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=LANG=C \"PATH=/usr/sbin:/usr/bin\"\n", 0o644)
	put(t, root, managerFile, "[Manager]\nDefaultEnvironment=A=B\n", 0o600)
	for dir, kind := range map[string]string{"etc": "etc", "var": "var", "usr": "usr"} {
		for name := range snapshot(t, filepath.Join(root, dir)) {
			setLabel(t, filepath.Join(root, dir, name), kind)
		}
	}
	setLabel(t, filepath.Join(root, "usr/bin"), "bin")
	setLabel(t, filepath.Join(root, "usr/lib"), "lib")
	setLabel(t, filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"), "ld_so")
	return root
}

// snapshot describes every file below a folder. Times of folders are left
// out: they change when a name in them comes and goes.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%s %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %s %x", info.ModTime(), sha256.Sum256(data))
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %s -> %s", info.ModTime(), target)
		}
		what += " " + getLabel(t, name)
		all[strings.TrimPrefix(name, root)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// layout is a snapshot without times, for trees that were written twice.
func layout(t *testing.T, root string) map[string]string {
	all := snapshot(t, root)
	for name := range all {
		data, err := os.ReadFile(filepath.Join(root, name))
		info, statErr := os.Lstat(filepath.Join(root, name))
		if statErr != nil {
			t.Fatal(statErr)
		}
		all[name] = info.Mode().String() + " " + getLabel(t, filepath.Join(root, name))
		if err == nil && info.Mode().IsRegular() && filepath.Base(name) != "installed.json" {
			all[name] += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
	}
	return all
}

func clone(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-a", root+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return dir
}

func mustAct(t *testing.T, action, root, source string) string {
	t.Helper()
	var said strings.Builder
	err := act(action, root, source, func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) })
	if err != nil {
		t.Fatalf("%s: %v", action, err)
	}
	return said.String()
}

func plan(t *testing.T, root, source string) (string, bool) {
	t.Helper()
	n, err := Open(t.Context(), options(root, source, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var out bytes.Buffer
	pending, err := n.Plan(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), pending
}

func status(t *testing.T, root string) (string, bool) {
	t.Helper()
	n, err := Open(t.Context(), options(root, "/nowhere", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var out bytes.Buffer
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Text(&out); err != nil {
		t.Fatal(err)
	}
	return out.String(), st.OK
}

var nodes = map[string]func(*testing.T) string{"bare": bare, "furnished": furnished}

func TestInstallAndUninstall(t *testing.T) {
	src := source(t, "one")
	for kind, node := range nodes {
		t.Run(kind, func(t *testing.T) {
			root := node(t)
			before := snapshot(t, root)

			text, pending := plan(t, root, src)
			if !pending || !strings.Contains(text, "+DefaultEnvironment=\"PATH=") {
				t.Errorf("plan says %v:\n%s", pending, text)
			}
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Fatalf("plan changed the node:\n%s", diff)
			}
			if text, ok := status(t, root); ok {
				t.Errorf("status of a node without an installation is good:\n%s", text)
			}

			mustAct(t, "install", root, src)
			installed := snapshot(t, root)
			inodes := identity(t, root)
			if text, ok := status(t, root); !ok {
				t.Errorf("status:\n%s", text)
			}
			if text, pending := plan(t, root, src); pending {
				t.Errorf("plan after install:\n%s", text)
			}
			for name := range installed {
				if strings.Contains(name, newSuffix) {
					t.Errorf("left behind: %s", name)
				}
			}

			if said := mustAct(t, "install", root, src); !strings.Contains(said, "nothing to do") {
				t.Errorf("second install said:\n%s", said)
			}
			if diff := cmp.Diff(installed, snapshot(t, root)); diff != "" {
				t.Errorf("the second install changed something:\n%s", diff)
			}
			if diff := cmp.Diff(inodes, identity(t, root)); diff != "" {
				t.Errorf("the second install wrote something:\n%s", diff)
			}

			mustAct(t, "uninstall", root, src)
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Errorf("after uninstall:\n%s", diff)
			}
			if said := mustAct(t, "uninstall", root, src); !strings.Contains(said, "nothing is installed") {
				t.Errorf("second uninstall said:\n%s", said)
			}
		})
	}
}

// identity is inode and change time of every file: equal means that nobody
// wrote, not even the same bytes.
func identity(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name := range snapshot(t, root) {
		if name == "/run" {
			continue // the lock comes and goes there
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		all[name] = fmt.Sprint(st.Ino, st.Ctim)
	}
	return all
}

func TestWhatIsWritten(t *testing.T) {
	src := source(t, "one")
	root := furnished(t)
	mustAct(t, "install", root, src)
	for name, want := range map[string]string{
		"etc/modules-load.d/rbd.conf":                "rbd",
		managerFile:                                  `DefaultEnvironment="PATH=/usr/sbin:/usr/bin:/opt/bin"`,
		"etc/modules-load.d/rbd.conf.before-opt-rbd": "nbd",
		"opt/rbd/current/usr/lib/libtext.so.1":       "one",
		"var/opt/bin/rbd":                            "ELF",
		"etc/systemd/system.conf":                    "LANG=C",
		managerFile + beforeSuffix:                   "A=B",
		"var/opt/rbd/current/payload.json":           `"id"`,
		"var/opt/rbd/installed.json":                 `"complete": true`,
		"etc/systemd/system.conf.d/50-opt-rbd.conf":  "[Manager]",
		"var/opt/bin/other":                          "#!/bin/sh",
	} {
		// Links such as /opt -> /var/opt are the node's: read them as it would.
		tr, err := openTree(root)
		if err != nil {
			t.Fatal(err)
		}
		data, err := tr.read("/" + name)
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: no %q in %.200q (%v)", name, want, data, err)
		}
	}
	info, err := os.Stat(filepath.Join(root, "var/opt/bin/rbd"))
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("the launcher is %v (%v)", info.Mode(), err)
	}
}

func fileIs(t *testing.T, name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// TestChangedSince: what somebody else changed after the installation is
// repaired by install, kept by uninstall, and told.
func TestChangedSince(t *testing.T) {
	src := source(t, "one")
	root := furnished(t)
	before := snapshot(t, root)
	mustAct(t, "install", root, src)

	put(t, root, "etc/modules-load.d/rbd.conf", "rbd\nceph\n", 0o600)
	if err := os.Remove(filepath.Join(root, managerFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "var/opt/bin/rbd"), 0o700); err != nil {
		t.Fatal(err)
	}
	text, ok := status(t, root)
	for _, want := range []string{"changed  /etc/modules-load.d/rbd.conf: other content", "missing  " + managerFile, "changed  /opt/bin/rbd: mode 0700, not 0755", "ok       /opt/rbd/current"} {
		if ok || !strings.Contains(text, want) {
			t.Errorf("status %v, no %q in:\n%s", ok, want, text)
		}
	}

	other := clone(t, root)
	said := mustAct(t, "uninstall", other, src)
	if !strings.Contains(said, "/etc/modules-load.d/rbd.conf left alone: somebody changed it since") {
		t.Errorf("uninstall said:\n%s", said)
	}
	after := snapshot(t, other)
	for _, name := range []string{"/etc/modules-load.d/rbd.conf", "/etc/modules-load.d/rbd.conf" + beforeSuffix} {
		if _, ok := after[name]; !ok {
			t.Errorf("%s is gone", name)
		}
		delete(after, name)
		delete(before, name)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after uninstall:\n%s", diff)
	}

	mustAct(t, "install", root, src)
	if text, ok := status(t, root); !ok {
		t.Errorf("status after repair:\n%s", text)
	}
	mustAct(t, "uninstall", root, src)
	if data, err := os.ReadFile(filepath.Join(root, "etc/modules-load.d/rbd.conf")); err != nil || string(data) != "rbd\nceph\n" {
		t.Errorf("the newer file of somebody else: %q, %v", data, err)
	}
}

// TestKeptNames: what stands under a name of something kept is not removed for
// something else; uninstall restores what it is to restore all the same.
func TestKeptNames(t *testing.T) {
	src := source(t, "one")
	const name = "opt/bin/rbd"
	same := func(t *testing.T, root, when string, want map[string]string) {
		t.Helper()
		kept, err := filepath.Glob(filepath.Join(root, name+".*"))
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]string{}
		for _, f := range append(kept, filepath.Join(root, name)) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			have[strings.TrimPrefix(f, root+"/")] = string(text)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s:\n%s", when, diff)
		}
	}

	t.Run("of somebody else", func(t *testing.T) {
		root := bare(t)
		put(t, root, name, "A", 0o755)
		put(t, root, name+beforeSuffix, "precious", 0o600)
		before := snapshot(t, root)
		want := "/" + name + beforeSuffix + ".2"
		if text, _ := plan(t, root, src); !strings.Contains(text, "write /"+name+", keep what stands there as "+want+" (") {
			t.Errorf("plan:\n%s", text)
		}
		if said := mustAct(t, "install", root, src); !strings.Contains(said, "/"+name+" written, what stood there is kept as "+want) {
			t.Errorf("install said:\n%s", said)
		}
		mustAct(t, "uninstall", root, src)
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Errorf("after uninstall:\n%s", diff)
		}
	})

	t.Run("of an installation before", func(t *testing.T) {
		root := bare(t)
		put(t, root, name, "A", 0o755)
		mustAct(t, "install", root, src)
		put(t, root, name, "B", 0o755)
		if said := mustAct(t, "uninstall", root, src); !strings.Contains(said, "what stood there before is /"+name+beforeSuffix+" (") {
			t.Errorf("uninstall said:\n%s", said)
		}
		left := map[string]string{name: "B", name + beforeSuffix: "A"}
		same(t, root, "after uninstall", left)
		mustAct(t, "install", root, src)
		mustAct(t, "uninstall", root, src)
		same(t, root, "after the second uninstall", left)
	})

	// As a configuration management does it.
	t.Run("put back again and again", func(t *testing.T) {
		root := bare(t)
		put(t, root, name, "A", 0o755)
		for range 3 {
			mustAct(t, "install", root, src)
			fresh := t.TempDir()
			put(t, fresh, "rbd", "A", 0o755)
			if err := os.Rename(filepath.Join(fresh, "rbd"), filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			same(t, root, "put back", map[string]string{name: "A", name + beforeSuffix: "A"})
		}
		mustAct(t, "uninstall", root, src)
		same(t, root, "after uninstall", map[string]string{name: "A"})

		mustAct(t, "install", root, src)
		put(t, root, name, "B", 0o755)
		mustAct(t, "install", root, src)
		mustAct(t, "uninstall", root, src)
		same(t, root, "after another one", map[string]string{name: "B", name + beforeSuffix: "A"})
	})

	t.Run("of a link", func(t *testing.T) {
		root := bare(t)
		if err := os.MkdirAll(filepath.Join(root, "opt/bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("other", filepath.Join(root, "opt/bin/rbdmap")); err != nil {
			t.Fatal(err)
		}
		if text, _ := plan(t, root, src); !strings.Contains(text, "link /opt/bin/rbdmap -> rbd, keep what stands there as /opt/bin/rbdmap"+beforeSuffix+" (") {
			t.Errorf("plan:\n%s", text)
		}
	})
}

// TestMovedFolder: a folder that the installer made and somebody has moved
// since, with a link in its place, is no longer the installer's, nor the link.
func TestMovedFolder(t *testing.T) {
	src := source(t, "one")
	for name, to := range map[string]string{"opt/bin": "data/bin", "etc/udev/rules.d": "data/rules.d", "opt": "var/opt", "opt/rbd": "data/rbd"} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			mustAct(t, "install", root, src)
			old, moved := filepath.Join(root, name), filepath.Join(root, to)
			if err := os.MkdirAll(filepath.Dir(moved), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(old, moved); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/"+to, old); err != nil {
				t.Fatal(err)
			}
			if text, ok := status(t, root); !ok {
				t.Errorf("status:\n%s", text)
			}
			said := mustAct(t, "uninstall", root, src)
			if target, err := os.Readlink(old); target != "/"+to || err != nil {
				t.Errorf("the link is %q, %v; uninstall said:\n%s", target, err, said)
			}
			left, err := filepath.Glob(filepath.Join(moved, "*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v; uninstall said:\n%s", left, err, said)
			}
			if said := mustAct(t, "uninstall", root, src); !strings.Contains(said, "nothing is installed") {
				t.Errorf("second uninstall said:\n%s", said)
			}
		})
	}
}

// TestLostRecord: a record that somebody has removed is written again, so that
// uninstall finds all that the installer wrote.
func TestLostRecord(t *testing.T) {
	old, src := source(t, "one"), source(t, "two")
	put(t, old, "shim", string(readFile(t, "/usr/bin/false")), 0o755)
	const record = "/opt/rbd/installed.json"
	for name, lose := range map[string]func(root string) error{
		"all in order": func(string) error { return nil },
		"a file too":   func(root string) error { return os.Remove(filepath.Join(root, "etc/modules-load.d/rbd.conf")) },
		"drop-in of the unit": func(root string) error {
			put(t, root, "etc/systemd/system/kubelet.service.d/zz-opt-rbd.conf", "[Service]\n", 0o644)
			return nil
		},
		"PATH of a running systemd": func(root string) error {
			put(t, root, managerFile, systemd.Manager("/usr/bin:/opt/bin"), 0o644)
			return nil
		},
	} {
		for kind, first := range map[string]string{"same release": src, "upgrade": old} {
			t.Run(name+", "+kind, func(t *testing.T) {
				root := bare(t)
				mustAct(t, "install", root, first)
				if err := errors.Join(os.Remove(filepath.Join(root, record)), lose(root)); err != nil {
					t.Fatal(err)
				}
				if text, ok := status(t, root); ok || text != "missing  "+record+": lost, install writes it again\n" {
					t.Errorf("status %v:\n%s", ok, text)
				}
				if err := act("uninstall", root, src, nil); err == nil || !strings.HasPrefix(err.Error(), record+" is lost: run install") {
					t.Errorf("uninstall: %v", err)
				}
				if text, pending := plan(t, root, src); !pending || !strings.Contains(text, "1. write "+record+" again (lost)\n") {
					t.Errorf("plan %v:\n%s", pending, text)
				}
				if said := mustAct(t, "install", root, src); !strings.Contains(said, record+" was lost and is written again") {
					t.Errorf("install said:\n%s", said)
				}
				if text, ok := status(t, root); !ok {
					t.Errorf("status:\n%s", text)
				}
				if text, pending := plan(t, root, src); pending {
					t.Errorf("plan after it:\n%s", text)
				}
				said := mustAct(t, "uninstall", root, src)
				err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
					if strings.Contains(name, "rbd") {
						t.Errorf("left behind: %s; uninstall said:\n%s", name, said)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestRefused(t *testing.T) {
	src := source(t, "one")
	for name, c := range map[string]struct {
		prepare func(t *testing.T, root string) error
		want    string
	}{
		"unmerged usr": {func(_ *testing.T, root string) error {
			os.Remove(filepath.Join(root, "lib"))
			return os.Mkdir(filepath.Join(root, "lib"), 0o755)
		}, "merged /usr"},
		"folder in the way": {func(_ *testing.T, root string) error {
			return os.MkdirAll(filepath.Join(root, "opt/bin/rbd"), 0o755)
		}, "/opt/bin/rbd is a folder"},
		"file in the way": {func(_ *testing.T, root string) error {
			return os.WriteFile(filepath.Join(root, "opt"), nil, 0o644)
		}, "/opt is not a folder"},
		"link to nowhere": {func(_ *testing.T, root string) error {
			return os.Symlink("/opt", filepath.Join(root, "opt"))
		}, "too many levels of symbolic links"},
		"dangling link": {func(_ *testing.T, root string) error {
			return os.Symlink("var/opt", filepath.Join(root, "opt"))
		}, "/opt is a link to var/opt, which is not there"},
		"read-only": {func(t *testing.T, root string) error {
			etc := filepath.Join(root, "etc")
			if err := syscall.Mount("none", etc, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
				return fmt.Errorf("mount a read-only tmpfs (needs root): %w", err)
			}
			t.Cleanup(func() { syscall.Unmount(etc, syscall.MNT_DETACH) })
			return nil
		}, "cannot write in /etc: read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			if err := c.prepare(t, root); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, root)
			err := act("install", root, src, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Errorf("something was changed:\n%s", diff)
			}
		})
	}
}

// TestOptionsRefused: what cannot be meant, and folders that units, rules or
// PATH would read otherwise.
func TestOptionsRefused(t *testing.T) {
	root := bare(t)
	for _, o := range []Options{
		{},
		{Root: root, Prefix: "opt"}, {Root: root, Prefix: "/"}, {Root: root, Prefix: "/opt/.."},
		{Root: root, Prefix: "/o pt"}, {Root: root, Prefix: "/opt "}, {Root: root, Prefix: "/o\tpt"}, {Root: root, Prefix: "/o\npt"},
		{Root: root, Prefix: "/o'pt"}, {Root: root, Prefix: `/o"pt`}, {Root: root, Prefix: `/o\pt`}, {Root: root, Prefix: "/o$pt"},
		{Root: root, Prefix: "/o%pt"}, {Root: root, Prefix: "/o:pt"}, {Root: root, Prefix: "/o;pt"}, {Root: root, Prefix: "/öpt"},
	} {
		n, err := Open(t.Context(), o)
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), ": give ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("root %q, prefix %q: %v", o.Root, o.Prefix, err)
		}
	}
	n, err := Open(t.Context(), Options{Root: root, Prefix: "/srv/RBD-1.0_a+b@c/"})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

// TestFullDisk: what does not fit leaves no half file, and what came before
// can be taken back.
func TestFullDisk(t *testing.T) {
	src := source(t, "one")
	root := t.TempDir()
	if err := syscall.Mount("none", root, "tmpfs", 0, "size=40k"); err != nil {
		t.Fatalf("mount a small tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(root, syscall.MNT_DETACH) })
	if err := os.Mkdir(filepath.Join(root, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, root)
	err := act("install", root, src, nil)
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("got %v", err)
	}
	for name := range snapshot(t, root) {
		if strings.Contains(name, newSuffix) {
			t.Errorf("left behind: %s", name)
		}
	}
	mustAct(t, "uninstall", root, src)
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Errorf("after uninstall:\n%s", diff)
	}
}

// TestDamagedPayload: a payload whose files are not those of its manifest does
// not become the current one.
func TestDamagedPayload(t *testing.T) {
	src := source(t, "one")
	root := bare(t)
	before := snapshot(t, root)
	for _, c := range []struct {
		text string
		mode fs.FileMode
		want string
	}{
		{"other", 0o644, "libtext.so.1.0 is not what the payload was made with: install the payload again"},
		{"one", 0o600, "libtext.so.1.0 has mode -rw------- and not -rw-r--r--: unpack the payload again as root or with tar -p, which keeps modes"},
	} {
		put(t, src, "payload/usr/lib/libtext.so.1.0", c.text, c.mode)
		err := act("install", root, src, nil)
		if err == nil || !strings.Contains(err.Error(), "payload is damaged: ") || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("got %v", err)
		}
	}
	if fileIs(t, filepath.Join(root, "opt/bin/rbd")) {
		t.Error("there is a launcher")
	}
	mustAct(t, "uninstall", root, src)
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Errorf("after uninstall:\n%s", diff)
	}
}

// TestNoEscape: links that lead out of the root stay in it.
func TestNoEscape(t *testing.T) {
	src := source(t, "one")
	outside := t.TempDir()
	root := bare(t)
	if err := os.Symlink("../../../../../../../../../.."+outside, filepath.Join(root, "opt")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "etc/modules-load.d")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, outside), 0o755); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, root)
	mustAct(t, "install", root, src)
	if names, err := os.ReadDir(outside); err != nil || len(names) > 0 {
		t.Errorf("outside of the root: %v, %v", names, err)
	}
	if !fileIs(t, filepath.Join(root, outside, "rbd.conf")) {
		t.Errorf("no rbd.conf in %s below the root: %v", outside, slices.Sorted(maps.Keys(snapshot(t, root))))
	}
	mustAct(t, "uninstall", root, src)
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Errorf("after uninstall:\n%s", diff)
	}
}

func TestManagerPaths(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		base  string
		after string // file
	}{
		"none":            {nil, "", ""},
		"other variables": {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=A=1 B=2\n"}, "", ""},
		"other section":   {map[string]string{"/etc/systemd/system.conf": "[Journal]\nDefaultEnvironment=PATH=/a\n"}, "", ""},
		"comment":         {map[string]string{"/etc/systemd/system.conf": "[Manager]\n#DefaultEnvironment=PATH=/a\n"}, "", ""},
		"quoted":          {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=\"PATH=/a:/b c\" X=\"y z\"\n"}, "/a:/b c", ""},
		"single quotes":   {map[string]string{"/etc/systemd/system.conf": "[Manager]\n DefaultEnvironment = X=1 'PATH=/a' \n"}, "/a", ""},
		"joined lines":    {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=X=1 \\\n# no\n  PATH=/j\n"}, "/j", ""},
		"last wins":       {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=PATH=/a\nDefaultEnvironment=PATH=/b PATH=/c\n"}, "/c", ""},
		"reset":           {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=PATH=/a\nDefaultEnvironment=\n"}, "", ""},
		"drop-in beats":   {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=PATH=/a\n", "/usr/lib/systemd/system.conf.d/10-v.conf": "[Manager]\nDefaultEnvironment=PATH=/v\n"}, "/v", ""},
		"etc hides usr":   {map[string]string{"/etc/systemd/system.conf.d/10-v.conf": "", "/usr/lib/systemd/system.conf.d/10-v.conf": "[Manager]\nDefaultEnvironment=PATH=/v\n"}, "", ""},
		"not ours":        {map[string]string{managerFile: "[Manager]\nDefaultEnvironment=PATH=/ours\n"}, "", ""},
		"after ours":      {map[string]string{"/run/systemd/system.conf.d/60-x.conf": "[Manager]\nDefaultEnvironment=PATH=/x\n"}, "/x", "/run/systemd/system.conf.d/60-x.conf"},
		"usr's own":       {map[string]string{"/usr/lib/systemd/system.conf": "[Manager]\nDefaultEnvironment=PATH=/u\n"}, "/u", ""},
		"no .conf":        {map[string]string{"/etc/systemd/system.conf.d/10-v.bak": "[Manager]\nDefaultEnvironment=PATH=/v\n"}, "", ""},
		"specifier":       {map[string]string{"/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=PATH=/a:%t/b\n"}, "/a:%t/b", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			for f, text := range c.files {
				put(t, root, f, text, 0o644)
			}
			tr, err := openTree(root)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.root.Close()
			base, after, err := managerPaths(tr)
			if err != nil || base.path != c.base || after.file != c.after {
				t.Errorf("base %q, after %q, %v", base.path, after.file, err)
			}
		})
	}
}

// TestPathAsSystemdReadsIt: what systemd 252 makes of the same text, as its
// config_parse and config_parse_environ said when they were called for each.
func TestPathAsSystemdReadsIt(t *testing.T) {
	const m = "[Manager]\nDefaultEnvironment="
	for text, want := range map[string]string{
		// Lines.
		"\ufeff[Manager]\nDefaultEnvironment=PATH=/a\n":       "/a",
		"\n\ufeff[Manager]\nDefaultEnvironment=PATH=/a\n":     "/a",
		"[Manager]\n\ufeffDefaultEnvironment=PATH=/a\n":       "/a",
		"\ufeff\ufeff[Manager]\nDefaultEnvironment=PATH=/a\n": "",
		"[Manager]\rDefaultEnvironment=PATH=/a\r":             "/a",
		"[Manager]\x00DefaultEnvironment=PATH=/a\x00":         "/a",
		"[Manager]\nX=1\x00DefaultEnvironment=PATH=/a\n":      "/a",
		"[Manager]\r\nDefaultEnvironment=\"PATH=/a\" X=1\r\n": "/a",
		"[Manager]\n\rDefaultEnvironment=PATH=/b\n\r":         "/b",
		m + "PATH=/a\rDefaultEnvironment=PATH=/b\n":           "/b",
		m + "PATH=/a": "/a",
		" [Manager] \n DefaultEnvironment\t=\tPATH=/a\t\n":                          "/a",
		"[Manager ]\nDefaultEnvironment=PATH=/a\n":                                  "",
		"[Manager]\n\x0cDefaultEnvironment=PATH=/a\n":                               "",
		"[Manager]\ndefaultenvironment=PATH=/a\n":                                   "",
		"[Manager]\n=PATH=/a\nnonsense\nDefaultEnvironment=PATH=/b\n":               "/b",
		"[Manager]\n  # DefaultEnvironment=PATH=/a\n \t; x\nDefaultEnvironment=X\n": "",
		// Joined lines.
		m + "X=1 \\\r\n PATH=/a\r\n":                           "/a",
		m + "X=1 \\\x00 PATH=/a\n":                             "/a",
		"[Manager]\rDefaultEnvironment=X=1 \\\rPATH=/a\r":      "/a",
		m + "X=1 \\\n\n PATH=/a\n":                             "",
		m + "PATH=/z X=1 \\ \n PATH=/a\n":                      "/z",
		m + "PATH=/z X=1\\\\\nDefaultEnvironment=PATH=/a\n":    "/a",
		m + "PATH=/a X=\\\\\\\n\nDefaultEnvironment=PATH=/b\n": "/b",
		m + "PATH=/a:\\\\\n/b\n":                               `/a:\`,
		m + "PATH=/a:\\\n# x\n/b\n":                            "/a:",
		m + "PATH=/a \\\n# x":                                  "/a",
		m + "PATH=/a\\":                                        "/a",
		m + "\"PATH=/a \\\n b\"\n":                             "/a   b",
		m + "PATH=/a \\\n[Foo]\nDefaultEnvironment=PATH=/b\n":  "/b",
		m + "\\\n# c \\\n; d\n PATH=/a\n":                      "/a",
		"[Manager]\n# x \\\nDefaultEnvironment=PATH=/a\n":      "/a",
		m + "PATH=/a\nDefaultEnvironment=\\\n\n":               "",
		// Words.
		m + `PATH=/a\x20b`:                       "/a b",
		m + `PATH=/a\sb`:                         "/a b",
		m + `PATH=/a\057b`:                       "/a/b",
		m + `PATH=/a\u0062\U00000062`:            "/abb",
		m + `PATH=/a\u00fc`:                      "/aü",
		m + `\x50ATH=/a`:                         "/a",
		m + `PATH=/a\a\b\f\r\t\vb`:               "/a\a\b\f\r\t\vb",
		m + `PATH=/a\"b`:                         `/a"b`,
		m + `'PATH=/a\'\x20b'`:                   "/a' b",
		m + `PATH=/a"b c"d`:                      "/ab cd",
		m + `PATH=/a X=\q PATH=/b`:               "/a",
		m + `PATH=/a\ b`:                         "",
		m + `PATH=/a\x1`:                         "",
		m + `PATH=/a\x00b`:                       "",
		m + `PATH=/a\05`:                         "",
		m + `PATH=/a\058`:                        "",
		m + `PATH=/a\400`:                        "",
		m + `PATH=/a "PATH=/b`:                   "/a",
		m + "PATH=/a\nDefaultEnvironment=\"X\n":  "/a",
		m + "PATH=/a\nDefaultEnvironment=\"\"\n": "/a",
		m + "PATH=/a\nDefaultEnvironment=  \n":   "",
		m + `PATH=/a PATH=/\374 X=1`:             "/a",
		m + "X=1\tPATH=/a":                       "/a",
		m + "X=1\vPATH=/a":                       "",
		m + "X=1\u00a0PATH=/a":                   "",
		m + "PATH=/a\v":                          "/a\v",
		m + `1X=3 PATH=/a # c`:                   "/a",
		m + "PATH=/a\n[Foo]\n" + m + "PATH=/b\n": "/b",
		// What ends the reading.
		m + "PATH=/a\nX=\xfc\nDefaultEnvironment=PATH=/b\n":            "/a",
		m + "PATH=/a\n# \xfc\nDefaultEnvironment=PATH=/b\n":            "/b",
		m + "PATH=/a\nDefaultEnvironment=PATH=/b \\\n\xfc\n":           "/a",
		m + "PATH=/a:\xed\xa0\x80\n":                                   "",
		m + "PATH=/a\n[Bad\nDefaultEnvironment=PATH=/b\n":              "/a",
		"[Manager] x\nDefaultEnvironment=PATH=/a\n":                    "",
		"DefaultEnvironment=PATH=/b\n[Manager]\nDefaultEnvironment=\n": "",
	} {
		if got, _, _ := lastPath(text, ""); got != want {
			t.Errorf("%q: %q, systemd has %q", text, got, want)
		}
	}
}

// TestWhereSystemdStops: a file that systemd cannot read ends its reading,
// unless there is none at all.
func TestWhereSystemdStops(t *testing.T) {
	const early, late = "/etc/systemd/system.conf.d/10-a.conf", "/usr/lib/systemd/system.conf.d/60-a.conf"
	for name, c := range map[string]struct {
		prepare func(root string) error
		base    string
		stop    string
	}{
		"link to nowhere": {func(root string) error { return os.Symlink("/nowhere", root+early) }, "/late", ""},
		"folder":          {func(root string) error { return os.Mkdir(root+early, 0o755) }, "/main", early + " is not a regular file"},
		"pipe":            {func(root string) error { return syscall.Mkfifo(root+early, 0o644) }, "/main", early + " is not a regular file"},
		"section":         {func(root string) error { return os.WriteFile(root+early, []byte("[Manager\n"), 0o644) }, "/main", early + ` has the line "[Manager", a section without its end`},
		"text":            {func(root string) error { return os.WriteFile(root+early, []byte("[Manager]\nX=\xfc\n"), 0o644) }, "/main", early + " is not UTF-8"},
		"hidden":          {func(root string) error { return syscall.Mkfifo(root+path.Dir(early)+"/.10.conf", 0o644) }, "/late", ""},
		"late": {func(root string) error {
			return syscall.Mkfifo(root+path.Dir(early)+"/55-a.conf", 0o644)
		}, "/main", ""},
		"no folder": {func(root string) error {
			dir := root + "/usr/local/lib/systemd"
			return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/system.conf.d", nil, 0o644))
		}, "/late", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			put(t, root, "etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=PATH=/main\n", 0o644)
			put(t, root, late, "[Manager]\nDefaultEnvironment=PATH=/late\n", 0o644)
			if err := errors.Join(os.Mkdir(root+path.Dir(early), 0o755), c.prepare(root)); err != nil {
				t.Fatal(err)
			}
			tr, err := openTree(root)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.root.Close()
			base, after, err := managerPaths(tr)
			stop := ""
			if after.stop != nil {
				stop = after.file + " " + after.stop.Error()
			}
			if err != nil || base.path != c.base || stop != c.stop {
				t.Errorf("base %q, stop %q, %v", base.path, stop, err)
			}
		})
	}
}

// TestBeaten: where no systemd can be asked, the files tell that another one
// keeps services from getting the folder.
func TestBeaten(t *testing.T) {
	src := source(t, "one")
	for name, c := range map[string]struct {
		file, text string
		want       string // "" is none
	}{
		"later":           {"/etc/systemd/system.conf.d/90-site.conf", "[Manager]\nDefaultEnvironment=PATH=/usr/sbin:/usr/bin\n", " sets PATH after 50-opt-rbd.conf and beats it: add :/opt/bin there"},
		"later reset":     {"/usr/lib/systemd/system.conf.d/99-reset.conf", "[Manager]\nDefaultEnvironment=\n", " takes PATH back after 50-opt-rbd.conf and beats it: set PATH with /opt/bin there"},
		"damaged before":  {"/run/systemd/system.conf.d/10-site.conf", "[Manager]\nX=\xfc\n", " is not UTF-8: systemd reads nothing after it, nor 50-opt-rbd.conf: mend it or move it away"},
		"later with ours": {"/etc/systemd/system.conf.d/90-site.conf", "[Manager]\nDefaultEnvironment=PATH=/usr/bin:/opt/bin\n", ""},
		"damaged after":   {"/etc/systemd/system.conf.d/10-site.conf", "[Manager]\nDefaultEnvironment=PATH=/usr/bin:/opt/bin\n[Manager\n", ""},
		"damaged later":   {"/etc/systemd/system.conf.d/90-site.conf", "[Manager\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			put(t, root, c.file, c.text, 0o644)
			before := layout(t, root)
			if c.want == "" {
				mustAct(t, "install", root, src)
				if text, ok := status(t, root); !ok {
					t.Errorf("status:\n%s", text)
				}
				return
			}
			want := c.file + c.want
			if text, pending := plan(t, root, src); !pending || !strings.Contains(text, want) {
				t.Errorf("no %q in the plan, %v:\n%s", want, pending, text)
			}
			if err := act("install", root, src, nil); err == nil || err.Error() != want {
				t.Errorf("install: %v, want %q", err, want)
			}
			if text, ok := status(t, root); ok || !strings.Contains(text, "changed  PATH of systemd's services: "+want) {
				t.Errorf("status %v, no %q in:\n%s", ok, want, text)
			}
			put(t, root, c.file, "", 0o644)
			mustAct(t, "install", root, src)
			if text, ok := status(t, root); !ok {
				t.Errorf("status after the file is mended:\n%s", text)
			}
			put(t, root, c.file, c.text, 0o644)
			mustAct(t, "uninstall", root, src)
			if diff := cmp.Diff(before, layout(t, root)); diff != "" {
				t.Errorf("after uninstall:\n%s", diff)
			}
		})
	}
}

// TestDamagedRecord: what is said of it is the way out.
func TestDamagedRecord(t *testing.T) {
	src, root := source(t, "one"), bare(t)
	before := snapshot(t, root)
	mustAct(t, "install", root, src)
	record := filepath.Join(root, "opt/rbd/installed.json")
	for _, text := range []string{"", "{", "null", "{}"} {
		put(t, root, "opt/rbd/installed.json", text, 0o644)
		err := act("install", root, src, nil)
		if err == nil || !strings.HasSuffix(err.Error(), ": move it away and run install, which writes it again") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := errors.Join(os.Remove(record), syscall.Mkfifo(record, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := act("install", root, src, nil); err == nil || !strings.HasSuffix(err.Error(), "installed.json: is not a regular file") {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.Rename(record, filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	mustAct(t, "install", root, src)
	if text, ok := status(t, root); !ok {
		t.Errorf("status:\n%s", text)
	}
	mustAct(t, "uninstall", root, src)
	after := snapshot(t, root)
	for name := range before {
		if after[name] != before[name] {
			t.Errorf("%s: %s, was %s", name, after[name], before[name])
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "opt/rbd")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("/opt/rbd after uninstall: %v", err)
	}
}

func TestFindIn(t *testing.T) {
	root := bare(t)
	put(t, root, "usr/sbin/rbd", "not executable", 0o644)
	put(t, root, "opt/bin/rbd", "x", 0o755)
	if err := os.MkdirAll(filepath.Join(root, "usr/local/bin/rbd"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.root.Close()
	if got, err := findIn(tr, "/usr/local/bin:/usr/sbin::bin:/nowhere:/opt/bin", "rbd"); err != nil || got != "/opt/bin/rbd" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := findIn(tr, "/usr/sbin:/usr/bin", "rbd"); err == nil {
		t.Errorf("found %q", got)
	}
}
