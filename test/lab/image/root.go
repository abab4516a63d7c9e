package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// initModules are loaded by the initramfs before it looks for the root.
var initModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "erofs", "overlay"}

// rootModules and moduleFolders are what modprobe finds in the node. The
// ciphers are whole folders, since the kernel asks for them by algorithm: with
// one too few, a map with ms_mode=secure blocks for ever.
var (
	rootModules = []string{
		"rbd", "nbd", "loop", "xfs", "btrfs",
		"br_netfilter", "nf_conntrack", "veth", "bridge",
	}
	moduleFolders = []string{"kernel/crypto", "kernel/arch/x86/crypto"}
)

// masked units have nothing to do in this node, and under emulation they made
// the boot five times as long.
var masked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
	"systemd-tmpfiles-clean.timer", "e2scrub_reap.service",
	"getty.target", "systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-initctl.socket",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "proc-sys-fs-binfmt_misc.automount",
	"modprobe@.service", "kmod-static-nodes.service", "procps.service", "hwclock.service",
	"systemd-binfmt.service", "systemd-firstboot.service", "systemd-journal-flush.service",
	"systemd-logind.service", "systemd-machine-id-commit.service", "systemd-network-generator.service",
	"systemd-networkd.service", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service",
	"systemd-pstore.service", "systemd-random-seed.service", "systemd-remount-fs.service",
	"systemd-repart.service", "systemd-sysusers.service", "systemd-update-utmp.service",
	"systemd-update-utmp-runlevel.service", "systemd-user-sessions.service",
}

// udevRules are those that say something of disks, ports and modules.
var udevRules = []string{
	"50-udev-default.rules", "60-block.rules", "60-persistent-storage.rules", "80-drivers.rules", "99-systemd.rules",
}

// dropped is what an immutable node has no use for.
var dropped = []string{
	"usr/bin/apt", "usr/bin/apt-*", "usr/bin/dpkg", "usr/bin/dpkg-*", "usr/sbin/dpkg-*", "usr/lib/apt", "usr/share/perl5/Debian",
	"usr/lib/systemd/system/systemd-time-wait-sync.service",
	// All but those that etc/cni/net.d names.
	"usr/lib/cni/[a-gi-km-oq-z]*", "usr/lib/cni/host-device", "usr/lib/cni/portmap",
	"var/cache/*", "var/lib/apt", "var/lib/dpkg", "var/log/*", "boot",
}

// buildNode makes kernel, initramfs and root in dir.
func buildNode(ctx context.Context, module, debian, kernel, dir string, selinux bool) error {
	version, err := kernelVersion(kernel)
	if err != nil {
		return err
	}
	mods, err := readModules(filepath.Join(kernel, "lib/modules", version))
	if err != nil {
		return err
	}
	bin := filepath.Join(dir, "bin")
	if err := buildGuest(ctx, module, bin, "agent", "init"); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(kernel, "boot/vmlinuz-"+version), filepath.Join(dir, "vmlinuz"), 0o644); err != nil {
		return err
	}
	if err := writeInitrd(filepath.Join(dir, "initrd"), filepath.Join(bin, "init"), mods); err != nil {
		return err
	}

	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := run(ctx, "", "tar", "-C", root, "-xpf", filepath.Join(debian, "root.tar")); err != nil {
		return err
	}
	if err := installModules(ctx, mods, root, version); err != nil {
		return err
	}
	if err := furnish(filepath.Join(module, "test/lab/image/rootfs"), bin, root); err != nil {
		return err
	}
	var options []string
	if selinux {
		if err := furnishSELinux(filepath.Join(module, "test/lab/image/rootfs-selinux"), root); err != nil {
			return err
		}
		options = append(options, "--file-contexts="+filepath.Join(root, fileContexts))
	}
	if err := makeErofs(ctx, root, filepath.Join(dir, "root.erofs"), options...); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(root), os.RemoveAll(bin))
}

// makeErofs makes a read-only file system of a folder. Nothing is compressed:
// unpacking costs more under emulation than the host's page cache does.
func makeErofs(ctx context.Context, dir, out string, options ...string) error {
	return run(ctx, "", "mkfs.erofs", append(options, "-T0", out, dir)...)
}

// furnish turns Debian's root into the node's.
func furnish(files, bin, root string) error {
	for _, pattern := range dropped {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	// Enabled by the packages; the node's own are linked below.
	wants, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/*.wants"))
	if err != nil {
		return err
	}
	for _, dir := range wants {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "etc/machine-id")); err != nil {
		return err
	}
	if err := copyTree(files, root); err != nil {
		return err
	}
	for _, dir := range []string{
		"etc/kubernetes/manifests", "opt", "usr/lib/kubernetes", "usr/lib/opt-rbd-lab", "var/lib/containerd", "home/core",
		"etc/systemd/system/multi-user.target.wants", "etc/systemd/system/local-fs.target.wants", "etc/systemd/system-generators", "etc/udev/rules.d",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(bin, "agent"), filepath.Join(root, "usr/lib/opt-rbd-lab/agent"), 0o755); err != nil {
		return err
	}
	// An ordinary user, as immutable systems have one.
	if err := errors.Join(
		appendLine(root, "etc/passwd", "core:x:1000:1000::/home/core:/bin/bash"),
		appendLine(root, "etc/group", "core:x:1000:"),
		os.Chown(filepath.Join(root, "home/core"), 1000, 1000),
	); err != nil {
		return err
	}

	links := map[string]string{
		"etc/systemd/system/default.target":                  "/usr/lib/systemd/system/multi-user.target",
		"etc/systemd/system/local-fs.target.wants/tmp.mount": "/usr/share/systemd/tmp.mount",
		"etc/systemd/system/tmp.mount":                       "/usr/share/systemd/tmp.mount",
	}
	for _, unit := range []string{"opt-rbd-agent.service", "containerd.service", "kubernetes-images.service", "kubelet.service"} {
		links["etc/systemd/system/multi-user.target.wants/"+unit] = "/usr/lib/systemd/system/" + unit
	}
	for _, unit := range masked {
		links["etc/systemd/system/"+unit] = os.DevNull
	}
	generators, err := os.ReadDir(filepath.Join(root, "usr/lib/systemd/system-generators"))
	if err != nil {
		return err
	}
	for _, g := range generators {
		links["etc/systemd/system-generators/"+g.Name()] = os.DevNull
	}
	rules, err := os.ReadDir(filepath.Join(root, "usr/lib/udev/rules.d"))
	if err != nil {
		return err
	}
	for _, r := range rules {
		if !slices.Contains(udevRules, r.Name()) {
			links["etc/udev/rules.d/"+r.Name()] = os.DevNull
		}
	}
	for name, target := range links {
		path := filepath.Join(root, name)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}

func appendLine(root, name, line string) error {
	f, err := os.OpenFile(filepath.Join(root, name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		// Debian has links in some of these places.
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		return copyFile(path, target, 0o644)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, data, mode), os.Chmod(to, mode))
}

// modules is a kernel's modules folder with the dependencies that depmod found.
type modules struct {
	dir  string
	path map[string]string   // name to path below dir
	deps map[string][]string // path to the paths that must be loaded before, in that order
}

func readModules(dir string) (modules, error) {
	m := modules{dir: dir, path: make(map[string]string), deps: make(map[string][]string)}
	data, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(data)) {
		path, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return m, fmt.Errorf("modules.dep: no colon in %q", line)
		}
		m.path[moduleName(path)] = path
		m.deps[path] = strings.Fields(deps)
		slices.Reverse(m.deps[path]) // modules.dep has the last to load first
	}
	return m, nil
}

// moduleName is the name that modprobe takes, in which - and _ are the same.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// closure is the paths of the named modules and of all that they need, each
// after what it needs. One that is built into the kernel has no file.
func (m modules) closure(names []string) ([]string, error) {
	builtin, err := os.ReadFile(filepath.Join(m.dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	inKernel := make(map[string]bool)
	for path := range strings.FieldsSeq(string(builtin)) {
		inKernel[moduleName(path)] = true
	}
	var paths []string
	add := func(path string) {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, name := range names {
		path, ok := m.path[name]
		if !ok && !inKernel[name] {
			return nil, fmt.Errorf("the kernel has no module %s", name)
		}
		if !ok {
			continue
		}
		for _, dep := range m.deps[path] {
			add(dep)
		}
		add(path)
	}
	return paths, nil
}

func installModules(ctx context.Context, m modules, root, version string) error {
	paths, err := m.closure(slices.Concat(initModules, rootModules))
	if err != nil {
		return err
	}
	for path := range m.deps {
		for _, folder := range moduleFolders {
			if strings.HasPrefix(path, folder+"/") {
				paths = append(paths, m.deps[path]...)
				paths = append(paths, path)
			}
		}
	}
	paths = append(paths, "modules.builtin", "modules.builtin.modinfo", "modules.order")
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		to := filepath.Join(root, "usr/lib/modules", version, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := copyFile(filepath.Join(m.dir, path), to, 0o644); err != nil {
			return err
		}
	}
	return run(ctx, "", "depmod", "-b", root, version)
}
