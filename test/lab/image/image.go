// Package image builds what a node of the lab boots from: Debian's cloud
// kernel, an initramfs with one Go program, a read-only erofs root without any
// rbd or Ceph package, and, for the nodes that ask for it, a disk with kubelet
// and the container images of its pods.
//
// Everything is kept in the user's cache folder under a name that is a digest
// of what made it, so a second call finds it at once and needs no network.
// Two builds at the same time wait for each other, and a killed one leaves
// nothing that a later one could take for whole. The newest kernel of the
// Debian suite is taken at the first build and stays until the cache folder is
// removed.
//
// It is no builder of production images: the root is trimmed for a fast boot
// under emulation.
package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const suite = "bookworm"

// packages is the node's root besides what minbase has. containerd brings ctr
// and its shim; runc is what it starts, and plugins of the last give pods their
// network.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "kmod", "udev", "iproute2", "e2fsprogs", "containerd", "runc", "containernetworking-plugins",
}

// Image is what QEMU is given.
type Image struct {
	Kernel string // bzImage
	Initrd string
	Root   string // erofs
}

// Build returns the node's image, built now if the cache does not have it.
// What takes long is told to log.
func Build(ctx context.Context, log io.Writer) (Image, error) {
	return build(ctx, log, "node", packages)
}

// build makes the image of a kind, which is what its rootfs folder is called
// after, too.
func build(ctx context.Context, log io.Writer, kind string, packages []string, options ...string) (Image, error) {
	if err := needTools(); err != nil {
		return Image{}, err
	}
	module, err := moduleRoot()
	if err != nil {
		return Image{}, err
	}
	debian, err := debianRoot(ctx, log, packages, options...)
	if err != nil {
		return Image{}, err
	}
	kernel, err := cloudKernel(ctx, log)
	if err != nil {
		return Image{}, err
	}
	k := newKey(kind, filepath.Base(debian), filepath.Base(kernel), runtime.Version())
	if err := k.addFolders(module, "test/lab/image", "test/lab/agent"); err != nil {
		return Image{}, err
	}
	dir, err := cached(ctx, kind, k, func(dir string) error {
		fmt.Fprintln(log, "lab: building the node's image")
		return buildNode(ctx, module, debian, kernel, dir, kind == "selinux")
	})
	return Image{
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd"),
		Root:   filepath.Join(dir, "root.erofs"),
	}, err
}

// debianRoot returns a folder with root.tar, the root as mmdebstrap makes it.
func debianRoot(ctx context.Context, log io.Writer, packages []string, options ...string) (string, error) {
	args := []string{
		"--mode=root", "--variant=minbase", "--include=" + strings.Join(packages, ","),
		"--aptopt=Apt::Install-Recommends false", "--aptopt=Acquire::Languages none",
	}
	for _, dir := range []string{"doc", "info", "locale", "man"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	args = append(append(args, options...), suite)
	return cached(ctx, "debian", newKey(args...), func(dir string) error {
		fmt.Fprintln(log, "lab: downloading and unpacking Debian packages for the node, about a minute")
		return run(ctx, "", "mmdebstrap", append(args, filepath.Join(dir, "root.tar"))...)
	})
}

// cloudKernel returns a folder with the unpacked package of the newest cloud
// kernel. A metapackage names it by its dependency.
func cloudKernel(ctx context.Context, log io.Writer) (string, error) {
	const meta = "linux-image-cloud-amd64"
	return cached(ctx, "kernel", newKey(suite, meta), func(dir string) error {
		out, err := output(ctx, "apt-cache", "depends", "--important", meta)
		if err != nil {
			return err
		}
		var name string
		for word := range strings.FieldsSeq(out) {
			if strings.HasPrefix(word, "linux-image-") && word != meta {
				name = word
			}
		}
		if name == "" {
			return fmt.Errorf("apt knows no %s: run apt-get update", meta)
		}
		fmt.Fprintln(log, "lab: downloading", name)
		if err := run(ctx, dir, "apt-get", "-q", "download", name); err != nil {
			return err
		}
		deb, err := only(filepath.Join(dir, "*.deb"))
		if err != nil {
			return err
		}
		if err := run(ctx, dir, "dpkg-deb", "-x", deb, dir); err != nil {
			return err
		}
		if err := os.Remove(deb); err != nil {
			return err
		}
		version, err := kernelVersion(dir)
		if err != nil {
			return err
		}
		return run(ctx, "", "depmod", "-b", dir, version)
	})
}

func kernelVersion(kernel string) (string, error) {
	dir, err := only(filepath.Join(kernel, "lib/modules/*"))
	return filepath.Base(dir), err
}

// only returns the one file that matches.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d files match %s instead of one", len(found), pattern)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// buildGuest compiles the static programs of the guest into dir.
func buildGuest(ctx context.Context, module, dir string, programs ...string) error {
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, "./test/lab/image/guest/"+p)
	}
	return goBuild(ctx, module, args...)
}

func goBuild(ctx context.Context, dir string, args ...string) error {
	cmd := command(ctx, dir, "go", args...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH=amd64")
	return report(cmd)
}

// command is a child that ends with this process, in a mount namespace of its
// own, so that the mounts of a killed mmdebstrap end as well.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// run runs a command and has its last lines in the error.
func run(ctx context.Context, dir, name string, args ...string) error {
	return report(command(ctx, dir, name, args...))
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	var out strings.Builder
	cmd := command(ctx, "", name, args...)
	cmd.Stdout = &out
	err := report(cmd)
	return out.String(), err
}

func report(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	// The signal at the parent's death follows the thread that started the
	// child, so that one must not end before it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(said.Bytes())
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, text[max(0, len(text)-2000):])
	}
	return nil
}

// tools are the programs that building and running a node needs, with the
// Debian package of each.
var tools = []struct{ program, pkg string }{
	{"apt-get", "apt"}, {"dpkg-deb", "dpkg"}, {"tar", "tar"},
	{"depmod", "kmod"},
	{"mkfs.erofs", "erofs-utils"},
	{"mkfs.ext4", "e2fsprogs"},
	{"mmdebstrap", "mmdebstrap"},
	{"qemu-system-x86_64", "qemu-system-x86"},
}

func needTools() error {
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err != nil {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing: install with apt-get install -y --no-install-recommends %s", strings.Join(missing, " "))
	}
	return nil
}

// moduleRoot is the folder of the module that the caller runs in.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module github.com/opt-rbd/opt-rbd\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the lab works only inside the source tree of opt-rbd")
		}
	}
}
