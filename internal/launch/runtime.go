package launch

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// exitRuntime is what docker, podman and nerdctl end with when they themselves fail; 126 and 127 mean to them what
// they mean here.
const exitRuntime = 125

// imageFolders are those of the image that nothing of the host may cover.
var imageFolders = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/run", "/sbin", "/sys", "/usr", "/var"}

// exec replaces the process by the runtime's client, which runs the same command in a container. It comes back only
// with an *Error. It has to be called where Exec has to be.
func (c Config) exec(argv, environ []string) error {
	if filepath.Base(argv[0]) == "rbd-nbd" {
		return errNBD(c.Runtime)
	}
	client, err := lookPath(c.Runtime)
	if err != nil {
		return &Error{exitMissing, ConfigFile + " says runtime = " + c.Runtime + ", which is not on the PATH; install it, or set runtime = none", nil}
	}
	// What CEPH_ARGS says goes on the line, where its keys are found with the line's.
	line := append([]string{argv[0]}, cloneAll(args.Environ(argv[1:], os.Getenv("CEPH_ARGS")))...)
	environ = slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, "CEPH_ARGS=") })
	n := readNeeds(line[1:])
	if n.nbd {
		return errNBD(c.Runtime)
	}
	if err := c.check(client, environ); err != nil {
		return err
	}
	var id [8]byte
	// Not crypto/rand, whose self-tests every start of the launcher would pay for.
	if _, err := unix.Getrandom(id[:], 0); err != nil {
		return &Error{exitCannot, "cannot make a name for the container", err}
	}
	name := "opt-rbd-" + hex.EncodeToString(id[:])
	var dir string
	if key, found := findKey(line); found {
		wipe(os.Args)
		file := ""
		if key != "" {
			if dir, err = keyFolder(name, key); err != nil {
				return err
			}
			file = dir + "/key"
			n.read = append(n.read, file)
		}
		line = replaceKey(line, file, "")
	}
	command, err := c.command(name, line, n, host())
	if err == nil {
		err = startGuard(client, name, dir, environ)
	}
	if err == nil {
		err = run(client, command, environ)
	}
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	return err
}

func errNBD(runtime string) error {
	return &Error{exitCannot, "rbd-nbd runs on after the command, which a container of " + runtime + " does not; set runtime = none in " + ConfigFile, nil}
}

// check asks the runtime for the image, so that the usual failures are told in one line before anything is started.
func (c Config) check(client string, environ []string) error {
	fail := func(err error) error { return &Error{exitRuntime, "cannot ask " + client, err} }
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = null.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = r.Close() }()
	p, err := os.StartProcess(client, []string{c.Runtime, "image", "inspect", "--format", "{{.Id}}", c.Image},
		&os.ProcAttr{Env: environ, Files: []*os.File{null, null, w}})
	_ = w.Close()
	if err != nil {
		return fail(err)
	}
	said := make([]byte, 0, 4096)
	for len(said) < cap(said) {
		m, err := r.Read(said[len(said):cap(said)])
		said = said[:len(said)+m]
		if err != nil {
			break
		}
	}
	state, err := p.Wait()
	if err != nil {
		return fail(err)
	}
	if state.Success() {
		return nil
	}
	lines := bytes.Split(bytes.TrimSpace(said), []byte("\n"))
	return &Error{exitRuntime, c.Runtime + " does not have the image " + c.Image + " of " + ConfigFile + ", or does not answer (" +
		string(lines[len(lines)-1]) + "); start it, or give it the image: " + c.Runtime + " load -i ceph-common.tar", nil}
}

// caller is what of the calling process shapes the container.
type caller struct {
	uid, gid int
	groups   []int
	dir      string // the current folder
	home     string
	tty      bool     // stdin, stdout and stderr are terminals
	environ  []string // names of variables that go in
	conf     []string // configuration files and keyrings that variables name
}

func host() (c caller) {
	c.uid, c.gid = os.Geteuid(), os.Getegid()
	c.groups, _ = os.Getgroups() // none without
	c.dir, _ = os.Getwd()        // "" where it is gone
	c.home = os.Getenv("HOME")
	c.tty = true
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			c.tty = false
		}
	}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		if name != "CEPH_ARGS" && strings.HasPrefix(name, "CEPH_") || name == "HOME" || name == "TZ" || name == "TERM" {
			c.environ = append(c.environ, name)
		}
		if name == "CEPH_CONF" || name == "CEPH_KEYRING" {
			c.conf = append(c.conf, fileList(value)...)
		}
	}
	return c
}

// command gives the client's command line.
func (c Config) command(name string, argv []string, n needs, host caller) ([]string, error) {
	out := []string{
		c.Runtime, "run", "--rm", "--pull=never", "--init", "--name=" + name,
		// The monitors as the host reaches them; krbd takes the caller's network for the connection.
		"--network=host", "--log-driver=none",
		"--cap-drop=ALL", "--security-opt=label=disable", "--security-opt=no-new-privileges",
	}
	if c.Runtime != "docker" && host.uid != 0 {
		// Rootless: root in the container is the caller on the host.
		host.uid, host.gid, host.groups = 0, 0, nil
	}
	out = append(out, "--user="+strconv.Itoa(host.uid)+":"+strconv.Itoa(host.gid))
	for _, g := range host.groups {
		if g != host.gid {
			out = append(out, "--group-add="+strconv.Itoa(g))
		}
	}
	if host.uid == 0 {
		// Keyrings are often ceph's own, and exports go where only another user may write.
		out = append(out, "--cap-add=DAC_OVERRIDE")
	}
	if n.stdin || host.tty {
		out = append(out, "--interactive")
	}
	if host.tty {
		out = append(out, "--tty")
	}
	for _, v := range host.environ {
		out = append(out, "--env="+v)
	}

	m := mounts{writable: map[string]bool{}}
	m.add("/etc/ceph", false)
	if host.home != "" {
		m.add(host.home+"/.ceph", false)
	}
	if host.dir != "" {
		out = append(out, "--workdir="+host.dir)
		if !covers(host.dir) {
			m.add(host.dir, false)
		}
	}
	abs := func(file string) string {
		if filepath.IsAbs(file) {
			return filepath.Clean(file)
		}
		return filepath.Join(host.dir, file)
	}
	for _, file := range append(n.conf, host.conf...) {
		// What a ceph.conf names lies beside it.
		if folder := filepath.Dir(abs(file)); !covers(folder) {
			m.add(folder, false)
		} else {
			m.add(abs(file), false)
		}
	}
	for _, file := range n.read {
		file = abs(file)
		if strings.HasPrefix(file, "/dev/fd/") || strings.HasPrefix(file, "/dev/std") || strings.HasPrefix(file, "/proc/") {
			return nil, &Error{exitCannot, file + " is the caller's alone and not to be seen in a container; name a file, or - for stdin", nil}
		}
		m.add(file, false)
	}
	for _, file := range n.write {
		file = abs(file)
		folder := filepath.Dir(file)
		if covers(folder) {
			return nil, &Error{exitCannot, "cannot write to " + folder + " from a container; name a file in a folder below", nil}
		}
		m.add(folder, true)
	}
	if n.kernel {
		out = append(out, "--cap-add=SYS_ADMIN", "--cap-add=SYS_MODULE", // /sys/bus/rbd, and modprobe rbd
			"--security-opt=seccomp=unconfined", // add_key(2)
			"--security-opt=apparmor=unconfined")
		m.add("/sys", true)
		m.add("/dev", true)
		m.add("/run/udev", false)
		m.add("/lib/modules", false)
	}
	for _, path := range m.paths {
		out = append(out, "--mount="+mount(path, m.writable[path]))
	}
	program := filepath.Base(argv[0])
	if !slices.Contains(Programs, program) {
		program = Programs[0]
	}
	return append(append(out, "--entrypoint="+program, c.Image), argv[1:]...), nil
}

// covers says whether a mount at a folder would hide what the image has. What lies below is only added.
func covers(folder string) bool {
	return folder == "/" || slices.Contains(imageFolders, folder) ||
		slices.ContainsFunc([]string{"/usr/", "/lib/", "/proc/", "/sys/", "/dev/"}, func(p string) bool { return strings.HasPrefix(folder, p) })
}

type mounts struct {
	paths    []string
	writable map[string]bool
}

// add takes what is there: of a file that is not, rbd itself has to tell.
func (m *mounts) add(path string, writable bool) {
	if _, err := os.Stat(path); err != nil {
		return
	}
	if !slices.Contains(m.paths, path) {
		m.paths = append(m.paths, path)
	}
	m.writable[path] = m.writable[path] || writable
}

// mount is a mount in the form of a line of comma separated values, as all three read it: -v has no way to say a colon.
func mount(path string, writable bool) string {
	quote := func(field string) string {
		if strings.ContainsAny(field, ",\"\r\n") {
			return `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
		}
		return field
	}
	m := "type=bind," + quote("source="+path) + "," + quote("target="+path)
	if !writable {
		m += ",readonly"
	}
	return m
}

// keyFolder writes a key to a file of a new folder, which is in memory and only the caller's. The client holds the
// folder by a lock that ends with it, so that a later call can tell what was left behind when the guard was killed as
// well.
func keyFolder(name, key string) (string, error) {
	fail := func(err error) (string, error) {
		return "", &Error{exitCannot, "cannot keep the key off the command line", err}
	}
	base := "/run/opt-rbd"
	if os.Geteuid() != 0 {
		if base = os.Getenv("XDG_RUNTIME_DIR"); base == "" {
			return fail(errors.New("XDG_RUNTIME_DIR is not set; log in by a session, or give a --keyring"))
		}
		base += "/opt-rbd"
	}
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fail(err)
	}
	sweep(base)
	dir := base + "/" + name
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fail(err)
	}
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err == nil {
		err = syscall.Flock(fd, syscall.LOCK_EX)
	}
	if err == nil {
		err = os.WriteFile(dir+"/key", []byte(key), 0o600)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return fail(err)
	}
	return dir, nil
}

// sweep removes the folders that nobody holds. One that is just being made is not yet held, for a moment; it is left
// alone for as long as it has no key.
func sweep(base string) {
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		dir := base + "/" + e.Name()
		if _, err := os.Stat(dir + "/key"); err != nil {
			continue
		}
		fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = syscall.Close(fd)
	}
}

func lookPath(program string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		file := filepath.Join(dir, program)
		if !filepath.IsAbs(file) {
			continue
		}
		if stat, err := os.Stat(file); err == nil && stat.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	return "", fs.ErrNotExist
}
