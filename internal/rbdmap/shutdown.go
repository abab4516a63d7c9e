package rbdmap

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// shutdown gives back every mapped device, so that no watcher stays behind
// that others would have to wait for. Processes that use one, such as those of
// containers that outlive their runtime, are ended: the machine is going down.
// A device that cannot be given back is unmapped by force in the end, and what
// had not reached the cluster is lost.
//
// It is for a unit that systemd stops after kubelet and container runtimes.
func (c *Command) shutdown() int {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var lock sync.Mutex
	var all sync.WaitGroup
	for _, d := range c.devices() {
		all.Add(1)
		go func() {
			defer all.Done()
			err := c.free(ctx, d)
			if err == nil {
				return
			}
			lock.Lock()
			c.warn("%v; by force now, what has not reached the cluster is lost", err)
			lock.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), force)
			defer cancel()
			if err := unmap(ctx, d, "-o", "force,noudev"); err != nil {
				lock.Lock()
				c.fail("%v", err)
				lock.Unlock()
			}
		}()
	}
	all.Wait()
	if n := len(c.devices()); n == 0 {
		c.warn("nothing is mapped any more, after %.1f s", time.Since(began).Seconds())
	}
	return min(c.failed, 255)
}

// free gives a device back as soon as nothing uses it.
func (c *Command) free(ctx context.Context, d krbd.Device) error {
	began := time.Now()
	for {
		err := release(ctx, d)
		if err == nil || ctx.Err() != nil {
			return err
		}
		signal := syscall.SIGTERM
		if time.Since(began) > grace {
			signal = syscall.SIGKILL
		}
		for _, pid := range users(d) {
			_ = syscall.Kill(pid, signal) // it may have ended
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// mounts returns where a device or one of its partitions is mounted, according
// to the file mountinfo of a process, in the order of mounting.
func mounts(mountinfo, device string) ([]string, error) {
	all, err := krbd.Mounts(mountinfo)
	var list []string
	for _, m := range all {
		// By the source: the number is another one for btrfs.
		if isPart(device, m.Source) {
			list = append(list, m.Point)
		}
	}
	return list, err
}

// isPart says whether a path leads to a device or to one of its partitions.
func isPart(device, path string) bool {
	if !strings.HasPrefix(path, "/dev/") {
		return false
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	rest, ok := strings.CutPrefix(path, device)
	return ok && (rest == "" || rest[0] == 'p')
}

// users returns the processes that keep a device from being given back: with
// it open, with a file or folder on it in use, or with a mount namespace in
// which it is mounted still.
func users(d krbd.Device) (pids []int) {
	numbers := numbersOf(d)
	spaces := map[string]bool{} // mount namespaces: whether the device is mounted there
	if own, err := os.Readlink("/proc/self/ns/mnt"); err == nil {
		spaces[own] = false // of this one's mounts the open files tell
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		space, err := os.Readlink(dir + "/ns/mnt")
		if err != nil {
			continue // it has ended
		}
		mounted, known := spaces[space]
		if !known {
			list, _ := mounts(dir+"/mountinfo", d.Path)
			mounted = len(list) > 0
			spaces[space] = mounted
		}
		if mounted || uses(dir, numbers) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// uses says whether a process has a file on one of the devices, or a device
// itself, open or as its place.
func uses(dir string, numbers []uint64) bool {
	names := []string{dir + "/cwd", dir + "/root", dir + "/exe"}
	fds, _ := os.ReadDir(dir + "/fd")
	for _, fd := range fds {
		names = append(names, dir+"/fd/"+fd.Name())
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil {
			continue
		}
		if slices.Contains(numbers, st.Dev) || st.Mode&unix.S_IFMT == unix.S_IFBLK && slices.Contains(numbers, st.Rdev) {
			return true
		}
	}
	return false
}

// numbersOf returns the numbers of a disk and its partitions.
func numbersOf(d krbd.Device) (numbers []uint64) {
	names, _ := filepath.Glob(d.Path + "p*")
	for _, name := range append(names, d.Path) {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			numbers = append(numbers, st.Rdev)
		}
	}
	return numbers
}
