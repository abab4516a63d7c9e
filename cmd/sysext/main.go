// Command sysext makes a system extension image: rbd in /usr/bin of a node
// without a file of its own in /opt or /etc. See systemd-sysext(8).
//
// It is for nodes that get all of their additions that way. The installer has
// the other one, and no part in this: the image brings the same units and
// rules, and systemd merges it or not.
package main

import (
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opt-rbd/opt-rbd/internal/node"
	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/systemd"
)

// name is that of the image, and of the file in it that says where it fits.
const name = "opt-rbd"

func main() {
	bin := flag.String("bin", "bin", "take shim and payload from this `folder`, and make "+name+".raw there")
	flag.Parse()
	size, err := build(*bin, filepath.Join(*bin, name+".raw"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "sysext:", err)
		os.Exit(1)
	}
	fmt.Printf("sysext: %s, %.1f MB\n", filepath.Join(*bin, name+".raw"), float64(size)/1e6)
}

// architectures are the words of extension-release for what ELF says.
var architectures = map[string]string{elf.EM_X86_64.String(): "x86-64", elf.EM_AARCH64.String(): "arm64"}

func build(bin, out string) (size int64, err error) {
	manifest, err := payload.Read(filepath.Join(bin, "payload"))
	if err != nil {
		return 0, fmt.Errorf("%w: run make payload", err)
	}
	root, err := os.MkdirTemp("", name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	if err := os.Chmod(root, 0o755); err != nil {
		return 0, err
	}
	// The launcher looks for its payload from where it really stands.
	const home = "usr/lib/opt-rbd"
	if err := os.MkdirAll(filepath.Join(root, home, "rbd"), 0o755); err != nil {
		return 0, err
	}
	if err := os.CopyFS(filepath.Join(root, home, "rbd/current"), os.DirFS(filepath.Join(bin, "payload"))); err != nil {
		return 0, err
	}
	shim, err := os.ReadFile(filepath.Join(bin, "shim"))
	if err != nil {
		return 0, err
	}
	files := map[string]string{
		home + "/bin/rbd":                                       string(shim),
		"usr/lib/udev/rules.d/50-rbd.rules":                     systemd.UdevRules("/usr/bin"),
		"usr/lib/modules-load.d/rbd.conf":                       systemd.ModulesLoad,
		"usr/lib/extension-release.d/extension-release." + name: "ID=_any\nARCHITECTURE=" + architectures[manifest.Machine] + "\n",
	}
	links := map[string]string{}
	for _, command := range []string{"rbd", "rbdmap", "ceph-rbdnamer"} {
		links["usr/bin/"+command] = "../lib/opt-rbd/bin/rbd"
	}
	for _, unit := range []string{systemd.Rbdmap, systemd.Shutdown} {
		files["usr/lib/systemd/system/"+unit] = systemd.Unit(unit, "/usr/bin", node.KubeletUnits)
		links["usr/lib/systemd/system/multi-user.target.wants/"+unit] = "../" + unit
	}
	for path, text := range files {
		mode := os.FileMode(0o644)
		if text == string(shim) {
			mode = 0o755
		}
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return 0, err
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return 0, err
		}
	}
	for path, target := range links {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return 0, err
		}
		if err := os.Symlink(target, path); err != nil {
			return 0, err
		}
	}
	// The same bytes for the same content: no time, and no random name.
	cmd := exec.Command("mkfs.erofs", "--quiet", "--all-root", "-zlz4hc", "-T0", "-U", "00000000-0000-0000-0000-000000000000", out, root)
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("mkfs.erofs: %w: %s", err, text)
	}
	info, err := os.Stat(out)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
