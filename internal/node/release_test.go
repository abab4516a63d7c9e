package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// releases makes what the installer carries, once per text: payload and
// launcher differ.
func releases(t *testing.T, texts ...string) (sources []string) {
	t.Helper()
	for _, text := range texts {
		src := source(t, text)
		f, err := os.OpenFile(filepath.Join(src, "shim"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil { // behind the end of the ELF file
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, src)
	}
	return sources
}

// runs says which release is current, by the texts in payload and launcher.
func runs(t *testing.T, root string) string {
	t.Helper()
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.root.Close()
	text, err := tr.read("/opt/rbd/current/usr/lib/libtext.so.1")
	if err != nil {
		t.Fatal(err)
	}
	shim, err := tr.read("/opt/bin/rbd")
	if err != nil || !strings.HasSuffix(string(shim), string(text)) {
		t.Errorf("the payload is %q, the launcher another (%v)", text, err)
	}
	return string(text)
}

func kept(t *testing.T, root, kind string) []string {
	t.Helper()
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.root.Close()
	names, err := tr.list("/opt/rbd/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestReleases(t *testing.T) {
	for kind, node := range nodes {
		t.Run(kind, func(t *testing.T) {
			src := releases(t, "one", "two", "three", "four")
			root := node(t)
			before := snapshot(t, root)

			if err := act("rollback", root, src[0], nil); err == nil || err.Error() != "nothing is installed in /opt" {
				t.Errorf("rollback of nothing: %v", err)
			}
			mustAct(t, "install", root, src[0])
			if err := act("rollback", root, src[0], nil); err == nil || !strings.HasPrefix(err.Error(), "this node has no release before the current one") {
				t.Errorf("rollback of the first: %v", err)
			}
			mustAct(t, "install", root, src[1])
			if got := runs(t, root); got != "two" {
				t.Errorf("release %s after the upgrade", got)
			}
			two := layout(t, root)

			// The node itself has what rollback needs, and remembers both.
			mustAct(t, "rollback", root, "/nowhere")
			if got := runs(t, root); got != "one" {
				t.Errorf("release %s after rollback", got)
			}
			mustAct(t, "rollback", root, "/nowhere")
			if diff := cmp.Diff(two, layout(t, root)); diff != "" {
				t.Errorf("after rollback and back:\n%s", diff)
			}

			// Only the last one is kept, when nothing runs from the others.
			text, pending := plan(t, root, src[2])
			if !pending || !strings.Contains(text, "remove /opt/rbd/versions/") {
				t.Errorf("plan of the third release:\n%s", text)
			}
			mustAct(t, "install", root, src[2])
			if v, l := kept(t, root, "versions"), kept(t, root, "launchers"); len(v) != 2 || len(l) != 2 {
				t.Errorf("kept after the third release: %v, %v", v, l)
			}
			if said := mustAct(t, "install", root, src[2]); !strings.Contains(said, "nothing to do") {
				t.Errorf("said:\n%s", said)
			}
			mustAct(t, "rollback", root, "/nowhere")
			if got := runs(t, root); got != "two" {
				t.Errorf("release %s after rollback", got)
			}

			// From half an upgrade back to what was whole.
			half := clone(t, root)
			if !cut(t, "install", half, src[3], 5) {
				t.Fatal("not cut off")
			}
			mustAct(t, "rollback", half, "/nowhere")
			if got := runs(t, half); got != "two" {
				t.Errorf("release %s after rollback of half an upgrade", got)
			}
			if v := kept(t, half, "versions"); len(v) > 2 {
				t.Errorf("kept: %v", v)
			}

			mustAct(t, "install", root, src[0])
			if v, l := kept(t, root, "versions"), kept(t, root, "launchers"); len(v) != 2 || len(l) != 2 {
				t.Errorf("kept: %v, %v", v, l)
			}
			mustAct(t, "uninstall", root, src[0])
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Errorf("after uninstall:\n%s", diff)
			}
		})
	}
}

// TestRunningRelease: a payload stays as long as a process runs from it, be
// that by a mount of its own, as root's do, or by the full path.
func TestRunningRelease(t *testing.T) {
	for name, start := range map[string]string{
		// Bound somewhere else than over /usr, where cat needs its own libraries.
		"by its mount":     `mount --bind "$1" /mnt && touch "$2" && exec cat`,
		"by its full path": `touch "$2"; exec "$1/bin/cat"`,
	} {
		t.Run(name, func(t *testing.T) {
			src := releases(t, "one", "two", "three", "four")
			root := bare(t)
			cat, err := os.ReadFile("/bin/cat")
			if err != nil {
				t.Fatal(err)
			}
			mustAct(t, "install", root, src[0])
			versions := kept(t, root, "versions")
			usr := filepath.Join(root, "opt/rbd/versions", versions[0], "usr")
			// A program that stays: what source puts there ends at once. The
			// installer does not look at a payload again that is not current.
			put(t, usr, "bin/cat", string(cat), 0o755)

			started := filepath.Join(t.TempDir(), "started")
			cmd := exec.Command("unshare", "--mount", "sh", "-c", start, "sh", usr, started)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, started)

			mustAct(t, "install", root, src[1])
			said := mustAct(t, "install", root, src[2])
			if !strings.Contains(said, versions[0]+" is kept, pid ") || !fileIs(t, usr+"/bin/cat") {
				t.Errorf("%s is gone, or nobody said why it stays:\n%s", versions[0], said)
			}
			if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("the process: %v", err)
			}
			stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("the process ended badly: %v", err)
			}
			if said := mustAct(t, "install", root, src[2]); !strings.Contains(said, versions[0]+" removed") || fileIs(t, usr+"/bin/cat") {
				t.Errorf("%s is still there:\n%s", versions[0], said)
			}
		})
	}
}

// TestHiddenProcesses: where the node's processes cannot be seen, a payload
// stays for the rest of the boot.
func TestHiddenProcesses(t *testing.T) {
	src := releases(t, "one", "two", "three")
	root := bare(t)
	mustAct(t, "install", root, src[0])
	mustAct(t, "install", root, src[1])
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", os.Args[0])
	cmd.Env = append(os.Environ(), envAction+"=install", envRoot+"="+root, envSource+"="+src[2], envAfter+"=100000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install in a PID namespace: %v: %s", err, out)
	}
	if v := kept(t, root, "versions"); len(v) != 3 {
		t.Errorf("kept: %v", v)
	}
	// As if the node had booted since.
	record := filepath.Join(root, "opt/rbd/installed.json")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, []byte(strings.ReplaceAll(string(text), bootID(), "another")), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("unshare", "--pid", "--fork", "--mount-proc", os.Args[0])
	cmd.Env = append(os.Environ(), envAction+"=install", envRoot+"="+root, envSource+"="+src[2], envAfter+"=100000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install in a PID namespace: %v: %s", err, out)
	}
	if v := kept(t, root, "versions"); len(v) != 2 {
		t.Errorf("kept after a boot: %v", v)
	}
}
