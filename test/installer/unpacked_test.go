package installer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opt-rbd/opt-rbd/test/lab/image"
)

// TestUnpackedImage looks at and installs into a node's image in a folder, as
// one does who builds images. It needs no node.
func TestUnpackedImage(t *testing.T) {
	if out, err := exec.Command("make", "-s", "-C", "../..", "bin/shim", "bin/installer").CombinedOutput(); err != nil {
		t.Fatalf("make bin/shim bin/installer: %v: %s", err, out)
	}
	img, err := image.Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	if out, err := exec.Command("fsck.erofs", "--extract="+root, img.Root).CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs (apt-get install erofs-utils): %v: %s", err, out)
	}
	content := tinyPayload(t)
	installer := func(code int, args ...string) string {
		t.Helper()
		args = append(args, "--root", root, "--payload", content, "--shim", "../../bin/shim")
		out, err := exec.Command("../../bin/installer", args...).CombinedOutput()
		got := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if t.Logf("installer %s: exit code %d\n%s", args[0], got, out); got != code {
			t.Fatalf("exit code %d, not %d", got, code)
		}
		return string(out)
	}

	before, files := digestTree(t, root)
	if files < 5000 {
		t.Fatalf("%d files are no node", files)
	}
	diff := installer(2, "plan")
	for _, want := range []string{
		"--- /dev/null\n+++ /etc/modules-load.d/rbd.conf\n",
		`+DefaultEnvironment="PATH=`,
		"write /opt/bin/rbd (not there)",
	} {
		if !strings.Contains(diff, want) {
			t.Errorf("plan: no %q", want)
		}
	}
	if after, _ := digestTree(t, root); after != before {
		t.Errorf("plan changed something: %s, was %s", after, before)
	}
	installer(0, "install", "--no-restart")
	after, _ := digestTree(t, root)
	if after == before {
		t.Error("install changed nothing")
	}
	installer(0, "plan")
	if again, _ := digestTree(t, root); again != after {
		t.Errorf("plan changed something: %s, was %s", again, after)
	}
}

// digestTree is a digest of all that a folder holds and the number of its
// files: names, modes, owners, content, and the times of content and inode.
// The latter nobody can set: what was changed and changed back shows, too.
func digestTree(t *testing.T, root string) (sum string, files int) {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(h, "%q %s %d %d %d %d %d %d\n", name, info.Mode(), st.Uid, st.Gid, st.Nlink, st.Rdev, st.Mtim.Nano(), st.Ctim.Nano())
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(name)
			fmt.Fprintf(h, "%q\n", target)
			return err
		case info.Mode().IsRegular():
			files++
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(h, f)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), files
}
