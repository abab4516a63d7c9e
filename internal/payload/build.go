package payload

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Options say what a payload is made from.
type Options struct {
	// Root is the folder whose libraries are taken, "/" for the running system's.
	Root string
	// Programs are files of the running system that go into usr/bin; the first is the one that Ceph is asked of.
	Programs []string
	// Dir becomes the payload. What stood there is replaced when the new one is complete.
	Dir string
}

// emptyFolders are where the launcher puts the host's own (internal/launch has the list with the reasons).
var emptyFolders = []string{"/usr/lib/modules", "/usr/lib/modprobe.d", "/usr/share/zoneinfo"}

// plugins are libraries that programs of Ceph and the C library load by name while they run. Those that the root does
// not have are not needed by its release.
var plugins = []struct {
	pattern string // next to the folder of libc
	option  string // Ceph's setting that makes use of them: a release that does not know it needs none
}{
	{"ceph/compressor/libceph_*.so", "ms_osd_compress_mode"}, // messages compressed on the wire, since Ceph 17
	{"ceph/librbd/libceph_librbd_*.so", "rbd_plugins"},       // caches
	{"libnss_files.so.2", ""},                                // /etc/hosts and DNS, in a C library before 2.34
	{"libnss_dns.so.2", ""},
}

// Build makes a payload. The same input gives the same bytes.
func Build(o Options) (*Manifest, error) {
	r := root(o.Root)
	if len(o.Programs) == 0 {
		return nil, errors.New("a payload needs a program")
	}
	c, err := newClosure(r, o.Programs[0])
	if err != nil {
		return nil, err
	}
	for _, program := range o.Programs {
		if err := c.add(program, "/usr/bin/"+filepath.Base(program)); err != nil {
			return nil, err
		}
	}
	for _, plugin := range plugins {
		if used, err := c.knows(plugin.option); err != nil {
			return nil, err
		} else if !used {
			continue
		}
		for _, found := range r.glob(path.Join(c.libc, plugin.pattern)) {
			before := maps.Clone(c.files)
			err := c.addFound(found, found)
			if errors.Is(err, errNoLibrary) {
				// Ceph goes on without a plugin that it cannot load. Debian's package of Ceph 18 has one for snappy
				// and does not ask for that library.
				c.files = before
			} else if err != nil {
				return nil, err
			}
		}
	}
	if err := c.addFound("/sbin/modprobe", "/usr/sbin/modprobe"); err != nil {
		return nil, fmt.Errorf("%w: install kmod", err)
	}
	loader, err := r.resolve(c.interpreter)
	if err != nil {
		return nil, err
	}
	loader = path.Join(c.libc, path.Base(loader))
	if err := c.addFound(c.interpreter, loader); err != nil {
		return nil, err
	}

	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(o.Dir), ".payload-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	w := writer{dir: dir}
	for at, from := range c.files {
		w.copy(from, at)
	}
	// Hosts differ in where /lib64 leads to: /usr/lib64 on most, /usr/lib on Arch Linux.
	for _, at := range []string{"/usr/lib", "/usr/lib64", inUsr(path.Dir(c.interpreter))} {
		w.link(loader, path.Join(at, path.Base(c.interpreter)))
	}
	for _, at := range emptyFolders {
		w.mkdir(at)
	}
	w.file("/usr/lib/opt-rbd/library-path", c.libraryPath())
	if w.err != nil {
		return nil, w.err
	}

	m, err := Scan(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	m.Machine = c.machine.String()
	if m.Ceph, err = cephVersion(dir, c, loader, o.Programs[0]); err != nil {
		return nil, err
	}
	if err := m.write(dir); err != nil {
		return nil, err
	}
	return m, replace(dir, o.Dir)
}

// knows says whether Ceph's common library, or a program that has it inside, names a setting.
func (c *closure) knows(option string) (bool, error) {
	if option == "" {
		return true, nil
	}
	for at, from := range c.files {
		if !strings.HasPrefix(path.Base(at), "libceph-common.so") && path.Dir(at) != "/usr/bin" {
			continue
		}
		content, err := os.ReadFile(from)
		if err != nil || bytes.Contains(content, []byte(option)) {
			return err == nil, err
		}
	}
	return false, nil
}

// libraryPath has the folders of the libraries, one a line, for those who start the loader by hand.
func (c *closure) libraryPath() []byte {
	dirs := []string{c.libc}
	for at := range c.files {
		// Plugins have no version in their names, and are in folders that are not searched.
		if dir := path.Dir(at); strings.Contains(path.Base(at), ".so.") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs[1:])
	var b strings.Builder
	for _, dir := range dirs {
		b.WriteString(strings.TrimPrefix(dir, "/") + "\n")
	}
	return []byte(b.String())
}

// cephVersion runs the program with the payload's own loader and libraries, which also shows that none is missing.
// A payload for another machine cannot be asked.
func cephVersion(dir string, c *closure, loader, program string) (string, error) {
	own, err := elf.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	own.Close()
	if own.Machine != c.machine {
		return "", nil
	}
	libraries := strings.Fields(string(c.libraryPath()))
	for i := range libraries {
		libraries[i] = filepath.Join(dir, libraries[i])
	}
	cmd := exec.Command(filepath.Join(dir, loader), "--inhibit-cache", "--library-path", strings.Join(libraries, ":"),
		filepath.Join(dir, "usr/bin", filepath.Base(program)), "--version")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s does not run with the payload's libraries: %w: %s", program, err, out)
	}
	// ceph version 16.2.15 (618f...) pacific (stable)
	words := strings.Fields(string(out))
	if len(words) < 3 || words[0] != "ceph" || words[1] != "version" {
		return "", nil
	}
	return words[2], nil
}

// replace puts dir in the place of target.
func replace(dir, target string) error {
	old := dir + ".old"
	err := os.Rename(target, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(dir, target); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// writer makes the files of a payload; the first failure is kept and the rest is not done.
type writer struct {
	dir string
	err error
}

func (w *writer) mkdir(at string) {
	if w.err == nil {
		w.err = os.MkdirAll(filepath.Join(w.dir, at), 0o755)
	}
}

func (w *writer) file(at string, content []byte) {
	w.mkdir(path.Dir(at))
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.dir, at), content, 0o644)
	}
}

// link makes a relative link at a path to another path of the payload.
func (w *writer) link(to, at string) {
	w.mkdir(path.Dir(at))
	if w.err != nil || to == at {
		return
	}
	rel, err := filepath.Rel(path.Dir(at), to)
	if err != nil {
		w.err = err
		return
	}
	if err := os.Symlink(rel, filepath.Join(w.dir, at)); !errors.Is(err, fs.ErrExist) {
		w.err = err
	}
}

// copy copies a file, without debugging information, executable if it is a program.
func (w *writer) copy(from, at string) {
	w.mkdir(path.Dir(at))
	if w.err != nil {
		return
	}
	content, err := os.ReadFile(from)
	if err != nil {
		w.err = err
		return
	}
	to := filepath.Join(w.dir, at)
	// Programs and the loader are run; other libraries keep no x bit on Debian, have one elsewhere. One rule for all.
	if w.err = os.WriteFile(to, content, 0o755); w.err != nil {
		return
	}
	// The process's umask has been at it.
	if w.err = os.Chmod(to, 0o755); w.err != nil {
		return
	}
	w.err = strip(to)
}

// strip removes debugging information, which is most of a library that has it.
func strip(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Section(".debug_info") == nil && f.Section(".zdebug_info") == nil {
		return nil
	}
	if out, err := exec.Command("strip", "--strip-debug", "--preserve-dates", file).CombinedOutput(); err != nil {
		return fmt.Errorf("strip %s: %w: %s", file, err, out)
	}
	return nil
}
