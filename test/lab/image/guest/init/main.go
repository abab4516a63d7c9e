// Command init is the whole initramfs of the node besides kernel modules: it
// loads them, mounts the read-only root with writable overlays for the folders
// that an immutable node lets be written, sets the network up and hands over
// to systemd.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writable are the folders with an overlay. /usr and everything else stays as
// the image has it.
var writable = []string{"etc", "opt", "var", "root", "home"}

// network is what QEMU's user network expects of its guest.
const network = `link set lo up
addr add 10.0.2.15/24 dev eth0
link set eth0 up
route add default via 10.0.2.2
`

func main() {
	fmt.Fprintln(os.Stderr, "init:", boot())
	// Leaving would panic the kernel, with the line above scrolled away.
	unix.Sync()
	fmt.Fprintln(os.Stderr, "init:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// boot does not return unless it failed.
func boot() error {
	for _, m := range []struct{ kind, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return err
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	// The kernel finds the disks while the modules' calls return already.
	root, err := disk("root", 30*time.Second)
	if err != nil {
		return err
	}
	if err := mount(root, "/root", "erofs", unix.MS_RDONLY, ""); err != nil {
		return err
	}
	state, err := disk("state", 30*time.Second)
	if err != nil {
		return err
	}
	if err := mount(state, "/state", "ext4", unix.MS_NOATIME, ""); err != nil {
		return err
	}
	for _, dir := range writable {
		upper, work, at := "/state/"+dir+"/upper", "/state/"+dir+"/work", "/root/"+dir
		if err := errors.Join(copyMode(at, upper), os.MkdirAll(work, 0o700)); err != nil {
			return err
		}
		if err := mount("overlay", at, "overlay", 0, "lowerdir="+at+",upperdir="+upper+",workdir="+work); err != nil {
			return err
		}
	}
	// containerd's overlayfs cannot lie on an overlay itself.
	if err := os.MkdirAll("/state/containerd", 0o710); err != nil {
		return err
	}
	if err := mount("/state/containerd", "/root/var/lib/containerd", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// The disk with kubelet is there only where a test asked for it.
	if kubelet, err := disk("kubelet", 0); err == nil {
		if err := mount(kubelet, "/root/usr/lib/kubernetes", "erofs", unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	ip := exec.Command("/usr/sbin/ip", "-batch", "-")
	ip.SysProcAttr = &syscall.SysProcAttr{Chroot: "/root"}
	ip.Dir = "/"
	ip.Stdin = strings.NewReader(network)
	ip.Stdout, ip.Stderr = os.Stderr, os.Stderr
	if err := ip.Run(); err != nil {
		return fmt.Errorf("ip: %w", err)
	}
	return handOver("/root", "/sbin/init")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	return nil
}

// copyMode makes the upper folder of an overlay look like the one below it,
// whose mode, owner and SELinux label, if any, it hides.
func copyMode(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	const selinux = "security.selinux"
	label := make([]byte, 1024)
	if n, err := unix.Getxattr(from, selinux, label); err == nil {
		if err := unix.Setxattr(to, selinux, label[:n], 0); err != nil {
			return err
		}
	}
	return errors.Join(os.Chown(to, int(st.Uid), int(st.Gid)), os.Chmod(to, fs.FileMode(st.Mode&0o777)))
}

// loadModules loads what the builder put into dir, in the order that the names
// give.
func loadModules(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		f, err := os.Open(filepath.Join(dir, file.Name()))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		// ENODEV: a driver of something that this CPU does not have.
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("load %s: %w", file.Name(), err)
		}
	}
	return nil
}

// disk finds a virtio disk by the serial number that QEMU was given for it.
func disk(serial string, wait time.Duration) (string, error) {
	for deadline := time.Now().Add(wait); ; {
		found, _ := filepath.Glob("/sys/block/vd*/serial")
		for _, file := range found {
			got, _ := os.ReadFile(file)
			if string(bytes.TrimSpace(got)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(file)), nil
			}
		}
		if !time.Now().Before(deadline) {
			return "", fmt.Errorf("no disk with the serial number %q", serial)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// handOver makes root the root folder and runs init in the place of this
// program.
func handOver(root, init string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	// The initramfs stays in memory unseen; it is a few megabytes.
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", init, unix.Exec(init, []string{init}, os.Environ()))
}
