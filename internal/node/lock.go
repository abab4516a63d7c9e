package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile keeps two installers from working on one node at a time. It has a
// folder of its own, which a container can be given without the rest of /run,
// and goes with the lock.
const lockFile = "/run/opt-rbd/installer.lock"

// lock takes the lock or says who has it.
func (t *tree) lock() (unlock func(), err error) {
	if info, err := t.stat("/run"); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("no folder /run below %s: is it the root folder of a node?", t.root.Name())
	}
	name, err := t.resolve(lockFile, false)
	if err != nil {
		return nil, named(lockFile, err)
	}
	for {
		f, err := t.tryLock(name)
		if err != nil {
			return nil, named(lockFile, err)
		}
		if f == nil {
			continue
		}
		return func() {
			_ = t.root.Remove(name)           // while the lock is held: nobody can have it by this name
			_ = t.root.Remove(path.Dir(name)) // stays when somebody else uses it
			f.Close()
		}, nil
	}
}

// tryLock returns nothing when the file that it locked is not the one that has
// the name by now, since the holder before took it away.
func (t *tree) tryLock(name string) (_ *os.File, err error) {
	if err := t.root.Mkdir(path.Dir(name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := t.root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the folder went at this moment
	}
	if err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			f.Close()
		}
	}()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, held(f)
	}
	if err != nil {
		return nil, err
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := t.root.Lstat(name); err != nil || !os.SameFile(mine, now) {
		return nil, nil
	}
	host, _ := os.Hostname()
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(f, "%d %s\n", os.Getpid(), host); err != nil {
		return nil, err
	}
	done = true
	return f, nil
}

// held says who holds the lock. A process id counts in its own container
// only, whose name it has as host name.
func held(f *os.File) error {
	text := make([]byte, 512)
	n, _ := f.ReadAt(text, 0)
	who := "another installer is"
	if pid, host, ok := strings.Cut(strings.TrimSpace(string(text[:n])), " "); ok {
		who = "another installer, pid " + pid
		if here, _ := os.Hostname(); host != here {
			who += " in " + host
		}
		who += ", is"
	}
	return errors.New(who + " at work on this node: wait until it is done")
}
