package node

import (
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

func label(kind string) string { return "system_u:object_r:" + kind + "_t:s0" }

func setLabel(t *testing.T, name, kind string) {
	t.Helper()
	if err := unix.Lsetxattr(name, labelName, []byte(label(kind)+"\x00"), 0); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// getLabel returns the label as it is stored, zero and all.
func getLabel(t *testing.T, name string) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(name, labelName, buf)
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		t.Fatalf("%s: %v", name, err)
	}
	return string(buf[:max(n, 0)])
}

// TestLabels: what is put into the prefix has the labels that the node's own
// /usr has, one that somebody changes is told and mended, and uninstall leaves
// those of others. That the kernel lets run what has them is tested in
// test/selinux.
func TestLabels(t *testing.T) {
	src := source(t, "one")
	root := furnished(t)
	before := snapshot(t, root)
	mustAct(t, "install", root, src)

	got := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(snapshot(t, filepath.Join(root, "var/opt")))) {
		kind := strings.TrimSuffix(getLabel(t, filepath.Join(root, "var/opt", name)), "\x00")
		got[kind] = append(got[kind], name)
	}
	m, err := payload.Read(filepath.Join(src, "payload"))
	if err != nil {
		t.Fatal(err)
	}
	launcher, err := launcherID(filepath.Join(src, "shim"))
	if err != nil {
		t.Fatal(err)
	}
	version := "/rbd/versions/" + m.ID
	want := map[string][]string{
		label("var"):   {"", "/bin", "/bin/other", "/bin/rbd.before-opt-rbd"},
		label("bin"):   {"/bin/ceph-rbdnamer", "/bin/rbd", "/bin/rbdmap", version + "/usr/bin", version + "/usr/bin/rbd"},
		label("ld_so"): {version + "/usr/lib/ld-2.31.so"},
		label("lib"):   {version + "/usr/lib", version + "/usr/lib/libtext.so.1", version + "/usr/lib/libtext.so.1.0"},
		label("usr"): {
			"/rbd", "/rbd/current", "/rbd/installed.json", "/rbd/launchers", "/rbd/launchers/" + launcher,
			"/rbd/versions", version, version + "/payload.json", version + "/usr",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels:\n%s", diff)
	}

	for _, name := range []string{"/bin/rbd", "/bin/rbdmap", "/rbd", "/rbd/installed.json", version + "/usr/lib/libtext.so.1.0", version + "/usr/lib/ld-2.31.so"} {
		file := filepath.Join(root, "var/opt", name)
		was := getLabel(t, file)
		setLabel(t, file, "var")
		text, ok := status(t, root)
		if line := "changed  SELinux labels: /opt" + name + " has var_t, not " + labelType(was) + "\n"; ok || !strings.Contains(text, line) {
			t.Errorf("status %v, no %q in:\n%s", ok, line, text)
		}
		text, pending := plan(t, root, src)
		if line := "1. set the SELinux label of /opt" + name + " ("; !pending || !strings.HasPrefix(text, line) {
			t.Errorf("plan %v, does not begin with %q:\n%s", pending, line, text)
		}
		if said := mustAct(t, "install", root, src); !strings.Contains(said, "SELinux label set, of /opt"+name+" (") {
			t.Errorf("install said:\n%s", said)
		}
		if now := getLabel(t, file); labelType(now) != labelType(was) {
			t.Errorf("%s has %s, not %s", name, now, was)
		}
	}
	// Whoever made it may have given it another one than its folder has.
	unit := "/etc/systemd/system/rbdmap.service"
	setLabel(t, filepath.Join(root, unit), "etc_runtime")
	text, pending := plan(t, root, src)
	if line := "1. set the SELinux label of " + unit + " ("; !pending || !strings.HasPrefix(text, line) {
		t.Errorf("plan %v, does not begin with %q:\n%s", pending, line, text)
	}
	mustAct(t, "install", root, src)
	if got := getLabel(t, filepath.Join(root, unit)); got != label("etc")+"\x00" {
		t.Errorf("%s has %q", unit, got)
	}
	// What stands in a folder goes by that, once it is mended itself.
	for _, name := range []string{path.Dir(unit), unit} {
		if err := unix.Lremovexattr(filepath.Join(root, name), labelName); err != nil {
			t.Fatal(err)
		}
	}
	mustAct(t, "install", root, src)
	for _, name := range []string{path.Dir(unit), unit} {
		if got := getLabel(t, filepath.Join(root, name)); got != label("etc")+"\x00" {
			t.Errorf("%s has %q", name, got)
		}
	}

	// A relabel of the system may choose among what does no harm.
	setLabel(t, filepath.Join(root, "var/opt", version, "usr/lib/ld-2.31.so"), "lib")
	setLabel(t, filepath.Join(root, "var/opt", version, "usr/lib"), "usr")
	setLabel(t, filepath.Join(root, "var/opt/bin/rbdmap"), "lib")
	put(t, root, "usr/lib/systemd/system/poweroff.service", "", 0o644)
	setLabel(t, filepath.Join(root, "usr/lib/systemd/system/poweroff.service"), "power_unit")
	setLabel(t, filepath.Join(root, "etc/systemd/system/opt-rbd-shutdown.service"), "power_unit")
	if text, pending := plan(t, root, src); pending {
		t.Errorf("plan after a relabel:\n%s", text)
	}
	if said := mustAct(t, "install", root, src); !strings.Contains(said, "nothing to do") {
		t.Errorf("another install said:\n%s", said)
	}
	mustAct(t, "uninstall", root, src)
	if err := os.RemoveAll(filepath.Join(root, "usr/lib/systemd")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Errorf("after uninstall:\n%s", diff)
	}
}

// TestNoLabels: where the node has none, or one for all, nothing gets one, and
// nothing speaks of them.
func TestNoLabels(t *testing.T) {
	src := source(t, "one")
	for _, kind := range []string{"", "user_home"} {
		root := bare(t)
		for name := range snapshot(t, root) {
			if kind != "" {
				setLabel(t, filepath.Join(root, name), kind)
			}
		}
		before := snapshot(t, root)
		mustAct(t, "install", root, src)
		for name := range snapshot(t, root) {
			if l := getLabel(t, filepath.Join(root, name)); l != "" && before[name] == "" {
				t.Errorf("%s has the label %q", name, l)
			}
		}
		if text, _ := status(t, root); strings.Contains(text, "SELinux") {
			t.Errorf("status:\n%s", text)
		}
	}
	// A running node is asked by its mounts. Of proc no kernel lets any be set.
	tr, err := openTree("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.root.Close()
	if takes, err := tr.takesLabels("/self/nosuch"); takes || err != nil {
		t.Errorf("proc takes labels: %v, %v", takes, err)
	}
}
