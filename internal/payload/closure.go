package payload

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// root is the folder whose libraries are taken: "/" or an unpacked distribution. Links in it that start with a slash
// mean the folder, not the running system.
type root string

// resolve follows every link in name, which starts with a slash, and gives the path below the root: /usr/lib/x for
// /lib/x of a merged /usr.
func (r root) resolve(name string) (string, error) {
	done, todo := "/", strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		next := path.Join(done, todo[0])
		todo = todo[1:]
		target, err := os.Readlink(r.file(next))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", err
		case err != nil: // not a link
			done = next
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: too many symbolic links", r.file(name))
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// file is name as the running system calls it.
func (r root) file(name string) string { return filepath.Join(string(r), name) }

// glob is filepath.Glob below the root.
func (r root) glob(pattern string) []string {
	found, err := filepath.Glob(r.file(pattern))
	if err != nil {
		panic(err) // a pattern of this package is wrong
	}
	for i, name := range found {
		found[i] = "/" + strings.TrimPrefix(strings.TrimPrefix(name, string(r)), "/")
	}
	return found
}

// closure finds the libraries that programs need, as the dynamic loader of the root would.
type closure struct {
	root    root
	machine elf.Machine
	class   elf.Class
	// libc is the folder of libc.so.6. Whatever the loader's defaults are on this distribution, they have that one.
	libc string
	// search are the folders that the loader looks into by itself.
	search []string
	// files says for each path in the payload, with a leading slash, which file of the running system goes there.
	files map[string]string
	// interpreter is the dynamic loader by the name that programs call it, such as /lib64/ld-linux-x86-64.so.2.
	interpreter string
}

// newClosure takes machine, class and interpreter from the program, a path of the running system.
func newClosure(r root, program string) (*closure, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("%s is not an ELF program: %w", program, err)
	}
	defer f.Close()
	c := &closure{root: r, machine: f.Machine, class: f.Class, files: make(map[string]string)}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, fmt.Errorf("%s: %w", program, err)
			}
			c.interpreter = strings.TrimRight(string(b), "\x00")
		}
	}
	if c.interpreter == "" {
		return nil, fmt.Errorf("%s is static: a payload is for programs that load libraries", program)
	}
	if c.search, err = r.loaderPath("/etc/ld.so.conf"); err != nil {
		return nil, err
	}
	// ld.so(8): the folders that need no configuration. Debian's come in by ld.so.conf.d.
	c.search = append(c.search, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	libc, err := c.find("libc.so.6", nil)
	if err != nil {
		return nil, err
	}
	c.libc = inUsr(path.Dir(libc))
	return c, nil
}

// loaderPath reads the folders of an ld.so.conf and of what it includes (ldconfig(8)).
func (r root) loaderPath(conf string) ([]string, error) {
	f, err := os.Open(r.file(conf))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var dirs []string
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] != "include":
			dirs = append(dirs, words[0])
		default:
			for _, pattern := range words[1:] {
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(conf), pattern)
				}
				for _, name := range r.glob(pattern) {
					more, err := r.loaderPath(name)
					if err != nil {
						return nil, err
					}
					dirs = append(dirs, more...)
				}
			}
		}
	}
	return dirs, nil
}

// find looks a library up, in dirs and then in the loader's own folders, and gives its path below the root. Like the
// loader it passes over files for other machines.
func (c *closure) find(name string, dirs []string) (string, error) {
	for _, dir := range slices.Concat(dirs, c.search) {
		candidate := path.Join(dir, name)
		real, err := c.root.resolve(candidate)
		if err != nil {
			continue
		}
		f, err := elf.Open(c.root.file(real))
		if err != nil {
			continue
		}
		f.Close()
		if f.Machine == c.machine && f.Class == c.class {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%w %s for %s in %s", errNoLibrary, name, c.machine, c.root)
}

// errNoLibrary is behind the error of a program that lacks one.
var errNoLibrary = errors.New("no library")

// add puts file, a path of the running system, at the path at of the payload, and every library that it needs.
func (c *closure) add(file, at string) error {
	if c.files[at] != "" {
		return nil
	}
	c.files[at] = file
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	if f.Machine != c.machine {
		return fmt.Errorf("%s is for %s, the rest for %s", file, f.Machine, c.machine)
	}
	needed, err := f.DynString(elf.DT_NEEDED)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	dirs, err := ownPath(f, path.Dir(at))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range needed {
		if name == path.Base(c.interpreter) {
			continue // it is loaded before all others
		}
		found, err := c.find(name, dirs)
		if err != nil {
			return fmt.Errorf("%s needs it: %w", file, err)
		}
		// Under the name by which it is asked for: a payload needs no links between versions. A library that only
		// ld.so.conf leads to goes beside libc, so that the payload needs no ld.so.cache.
		target := path.Join(c.libc, name)
		if slices.Contains(dirs, path.Dir(found)) {
			target = inUsr(found)
		}
		if err := c.addFound(found, target); err != nil {
			return err
		}
	}
	return nil
}

// addFound adds a path of the root.
func (c *closure) addFound(found, at string) error {
	real, err := c.root.resolve(found)
	if err != nil {
		return err
	}
	return c.add(c.root.file(real), at)
}

// ownPath gives the folders that an ELF file in dir says its libraries are in.
func ownPath(f *elf.File, dir string) ([]string, error) {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		lists, err := f.DynString(tag)
		if err != nil {
			return nil, err
		}
		for _, list := range lists {
			for _, d := range strings.Split(list, ":") {
				d = strings.NewReplacer("$ORIGIN", dir, "${ORIGIN}", dir).Replace(d)
				dirs = append(dirs, path.Clean(d))
			}
		}
	}
	return dirs, nil
}

// inUsr is a path such as /lib64/x as it is called with a merged /usr.
func inUsr(name string) string {
	if strings.HasPrefix(name, "/usr/") {
		return name
	}
	return "/usr" + name
}
