package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// base holds the folders of all clusters. /var/tmp rather than /tmp: bluestore opens its file with O_DIRECT, which a
// /tmp in memory may refuse.
const base = "/var/tmp/opt-rbd-lab"

// supervisorName is the first argument that makes any program with this package in it a supervisor.
const supervisorName = "opt-rbd-lab-supervisor"

// A test is compiled to one binary, so what is to outlive its sudden end can only be that binary again. It must not get
// as far as running tests, hence an init.
func init() {
	if os.Args[0] == supervisorName {
		if err := supervise(os.Args[1], os.Args[2], os.Args[3] == "stay"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// supervise is the first process of the cluster's PID namespace. It waits for its end, removes the folder and exits,
// which makes the kernel kill everything else in the namespace. File descriptor 3 is the lock on the folder; nothing
// else inherits it, so it tells whether the supervisor lives.
func supervise(dir, root string, stay bool) error {
	signal.Ignore(syscall.SIGCHLD) // the kernel reaps what is orphaned in here
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	unix.CloseOnExec(3)
	if root != "" {
		if err := fillRoot(dir, root); err != nil {
			return fmt.Errorf("root folder %s: %w", root, err)
		}
	}
	fmt.Println("ready")
	if !stay {
		go func() {
			io.Copy(io.Discard, os.Stdin) //nolint:errcheck // an error is as much the end as EOF is
			ended <- syscall.SIGTERM
		}()
	}
	<-ended
	// ESRCH: there was nobody else.
	if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return removeAll(dir)
}

// removeAll also removes a folder into which a process that was just killed still writes.
func removeAll(dir string) error {
	var err error
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// fillRoot makes the other system complete enough for daemons, in this mount namespace only, so nothing has to be
// unmounted. A tmpfs over its /var/tmp takes the mount point of our folder.
func fillRoot(dir, root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", filepath.Join(root, filepath.Dir(base)), "tmpfs", 0, "mode=1777"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
		return err
	}
	for _, path := range []string{dir, "/dev", "/proc", "/sys"} {
		if err := unix.Mount(path, filepath.Join(root, path), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
	}
	return nil
}

// supervisor is a supervisor as its starter sees it.
type supervisor struct {
	dir   string
	pid   int
	cmd   *exec.Cmd // nil for one that Open found
	alive io.Closer // closing it ends the supervisor, unless it stays
}

func startSupervisor(o Options) (*supervisor, error) {
	dir, lock, err := claimFolder(o.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	s := &supervisor{dir: dir}
	if err := s.start(o, lock); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *supervisor) start(o Options, lock *os.File) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log", "supervisor"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	stay := ""
	if o.Name != "" {
		stay = "stay"
	}
	s.cmd = &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{supervisorName, s.dir, o.Root, stay},
		Dir:        "/",
		Stderr:     log,
		ExtraFiles: []*os.File{lock},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
			// Out of reach of a terminal's Ctrl-C, which ends the test and thereby the supervisor in good order.
			Setsid: true,
		},
	}
	if s.alive, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	start := s.cmd.Start
	if o.Beside != nil {
		s.cmd.SysProcAttr.Cloneflags &^= unix.CLONE_NEWNET
		start = func() error { return o.Beside.Do(s.cmd.Start) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	s.pid = s.cmd.Process.Pid
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		s.alive.Close()
		return fmt.Errorf("supervisor: %w: %s", errors.Join(err, s.cmd.Wait()), tail(log.Name()))
	}
	return nil
}

// end ends the supervisor and waits until folder and processes are gone.
func (s *supervisor) end() error {
	if s.cmd != nil {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
			return nil
		} else if err != nil {
			return fmt.Errorf("end of the lab's supervisor: %w", err)
		}
		s.alive.Close()
		ended := make(chan error, 1)
		go func() { ended <- s.cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("end of the lab's supervisor: %w: %s", err, tail(filepath.Join(s.dir, "log", "supervisor")))
			}
			return nil
		case <-time.After(30 * time.Second):
			return errors.New("the lab's supervisor does not end: is there a command made by Daemon that nobody waits for?")
		}
	}
	// As long as the lock is held, the recorded process is the supervisor.
	if held, err := lockHeld(s.dir); errors.Is(err, fs.ErrNotExist) || err == nil && !held {
		return nil
	}
	if err := syscall.Kill(s.pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end of the lab's supervisor: %w", err)
	}
	for range 500 {
		if held, err := lockHeld(s.dir); errors.Is(err, fs.ErrNotExist) || err == nil && !held {
			return os.RemoveAll(s.dir)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("the lab's supervisor (process %d) does not end", s.pid)
}

// claimFolder makes the folder of a new cluster and returns it with the lock that says that it is in use. Before, it
// sweeps the folders whose lock nobody holds. A lock on base keeps a sweep away from a folder that is not locked yet.
func claimFolder(name string) (dir string, lock *os.File, err error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", nil, err
	}
	// Everyone may write to /var/tmp: what stands there must be ours before root puts keys into it.
	info, err := os.Lstat(base)
	if err != nil {
		return "", nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; !info.IsDir() || int(owner) != os.Getuid() {
		return "", nil, fmt.Errorf("%s is not a folder of user %d: remove it", base, os.Getuid())
	}
	all, err := os.Open(base)
	if err != nil {
		return "", nil, err
	}
	defer all.Close()
	if err := flock(all, unix.LOCK_EX); err != nil {
		return "", nil, err
	}
	if err := sweep(all); err != nil {
		return "", nil, err
	}
	if name == "" {
		dir, err = os.MkdirTemp(base, "test-")
	} else {
		dir = filepath.Join(base, name)
		err = os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("cluster %s: %w", name, ErrRunning)
		}
	}
	if err != nil {
		return "", nil, err
	}
	// MkdirTemp's folder is closed to other users; what must be is closed by itself.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	if lock, err = os.Open(dir); err != nil {
		return "", nil, err
	}
	for _, sub := range []string{"log", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return "", nil, errors.Join(err, lock.Close())
		}
	}
	if err := flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, errors.Join(err, lock.Close())
	}
	return dir, lock, nil
}

// ErrRunning says that a cluster of that name is there already.
var ErrRunning = errors.New("already running")

// sweep removes the folders of clusters whose supervisor is gone without having done so.
func sweep(base *os.File) error {
	entries, err := base.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(base.Name(), e.Name())
		held, err := lockHeld(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its supervisor removed it just now
		}
		if err != nil {
			return err
		}
		if !held {
			if err := removeAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// lockHeld reports whether a supervisor holds the lock on its folder.
func lockHeld(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// tail returns the last lines of a log, for an error.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return lastWords(string(text))
}

// lastWords returns the end of what a program said. A daemon of Ceph that crashes says why, and then dumps all that it
// knows.
func lastWords(text string) string {
	for _, dump := range []string{"*** Caught signal", "--- begin dump of recent events"} {
		text, _, _ = strings.Cut(text, dump)
	}
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
