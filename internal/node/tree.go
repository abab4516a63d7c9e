package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

// A tree is a node's file system below its root folder. Names are absolute as
// the node sees them. Symbolic links of folders are followed as the node
// would follow them, so /opt -> /var/opt stays below the root; os.Root makes
// sure that nothing leaves it even while somebody moves things about.
//
// Every change is made so that a power loss leaves the old state or the new
// one: data and folders are synced before the call returns.
type tree struct {
	root   *os.Root
	labels *labels // SELinux's; nil where there are none

	// around is called for each change of the file system and has to make it.
	// Tests set it to fail a change, to end the process after it, or to note it.
	around func(c change, do func() error) error
}

// A change is one call that changes the file system. Names are relative to
// the root.
type change struct {
	op   string // mkdir, chmod, create, write, sync, symlink, link, rename, remove, syncfs, label
	name string
	to   string // of a link what it points at, of a label that, else the new name
	mode fs.FileMode
	data []byte // of a write
}

func (c change) String() string { return strings.TrimSpace(c.op + " " + c.name + " " + c.to) }

func (t *tree) do(c change, do func() error) error {
	if t.around == nil {
		return do()
	}
	return t.around(c, do)
}

func (t *tree) opMkdir(rel string) error {
	return t.do(change{op: "mkdir", name: rel, mode: 0o755}, func() error { return t.root.Mkdir(rel, 0o755) })
}

func (t *tree) opChmod(rel string, mode fs.FileMode) error {
	return t.do(change{op: "chmod", name: rel, mode: mode}, func() error { return t.root.Chmod(rel, mode) })
}

func (t *tree) opSymlink(target, rel string) error {
	return t.do(change{op: "symlink", name: rel, to: target}, func() error { return t.root.Symlink(target, rel) })
}

func (t *tree) opLink(rel, to string) error {
	return t.do(change{op: "link", name: rel, to: to}, func() error { return t.root.Link(rel, to) })
}

func (t *tree) opRename(rel, to string) error {
	return t.do(change{op: "rename", name: rel, to: to}, func() error { return t.root.Rename(rel, to) })
}

func (t *tree) opRemove(rel string) error {
	return t.do(change{op: "remove", name: rel}, func() error { return t.root.Remove(rel) })
}

// opRmdir removes a folder and nothing else, as rmdir(2) does: Root.Remove
// takes a file or a link of that name as well.
func (t *tree) opRmdir(rel string) error {
	return t.do(change{op: "remove", name: rel}, func() error {
		dir, err := t.root.Open(path.Dir(rel))
		if err != nil {
			return err
		}
		defer dir.Close()
		return unix.Unlinkat(int(dir.Fd()), path.Base(rel), unix.AT_REMOVEDIR)
	})
}

// A newFile is a file that is being written.
type newFile struct {
	*os.File
	t   *tree
	rel string
}

func (t *tree) opCreate(rel string) (f newFile, err error) {
	f = newFile{t: t, rel: rel}
	err = t.do(change{op: "create", name: rel, mode: 0o600}, func() (err error) {
		f.File, err = t.root.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	return f, err
}

// fill writes all of a file: content, mode and, when asked, onto the disk.
func (f newFile) fill(from io.Reader, mode fs.FileMode, sync bool) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			err := f.t.do(change{op: "write", name: f.rel, data: buf[:n]}, func() error {
				_, err := f.Write(buf[:n])
				return err
			})
			if err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	// Not by OpenFile: the umask would have a say.
	err := f.t.do(change{op: "chmod", name: f.rel, mode: mode}, func() error { return f.Chmod(mode) })
	if err == nil && sync {
		err = f.t.do(change{op: "sync", name: f.rel}, f.Sync)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// suffix names of what the installer puts beside a file.
const (
	newSuffix    = ".opt-rbd-new"    // content on its way, never left by a finished run
	beforeSuffix = ".before-opt-rbd" // what stood there before the first install
)

func newName(name string) string { return path.Join(path.Dir(name), "."+path.Base(name)+newSuffix) }

func openTree(dir string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, named(dir, err)
	}
	return &tree{root: root}, nil
}

// resolve returns name relative to the root with the links of its folders
// followed, and the last part too when follow is set. Parts that are not
// there are kept as they are.
func (t *tree) resolve(name string, follow bool) (string, error) {
	at, todo := ".", parts(name)
	for hops := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		if len(todo) == 0 && !follow {
			return next, nil
		}
		target, err := t.root.Readlink(next)
		switch {
		case errors.Is(err, syscall.EINVAL): // not a link
			at = next
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return path.Join(next, path.Join(todo...)), nil
		case err != nil:
			return "", err
		default:
			// The kernel's own bound, see path_resolution(7).
			if hops++; hops > 40 {
				return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
			}
			if path.IsAbs(target) {
				at = "."
			}
			todo = append(parts(target), todo...)
		}
	}
	return at, nil
}

func parts(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}

// An object says what stands at a path.
type object struct {
	Kind   kind   `json:"kind"`
	Mode   uint32 `json:"mode,omitempty"`   // permission bits with setuid, setgid and sticky, as chmod(2) takes them
	UID    uint32 `json:"uid,omitempty"`    // owner
	GID    uint32 `json:"gid,omitempty"`    // group
	Digest string `json:"digest,omitempty"` // sha256 of a file's content, of a payload's list of files
	Target string `json:"target,omitempty"` // of a link
}

type kind string

const (
	absent        kind = "absent"
	file          kind = "file"
	link          kind = "link"
	folder        kind = "folder"
	payloadFolder kind = "payload" // a folder that is looked at with all that is in it
	special       kind = "special" // device, socket, pipe
)

// same says whether two objects hold the same, whoever owns them.
func (o object) same(p object) bool {
	return o.Kind == p.Kind && o.Digest == p.Digest && o.Target == p.Target
}

// look says what stands at name; a last part that is a link is not followed.
func (t *tree) look(name string) (object, error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return object{}, named(name, err)
	}
	info, err := t.root.Lstat(rel)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return object{Kind: absent}, nil
	}
	if err != nil {
		return object{}, named(name, err)
	}
	st := info.Sys().(*syscall.Stat_t)
	o := object{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}
	switch info.Mode().Type() {
	case 0:
		o.Kind = file
		f, err := t.root.Open(rel)
		if err != nil {
			return object{}, named(name, err)
		}
		defer f.Close()
		if o.Digest, err = digest(f); err != nil {
			return object{}, fmt.Errorf("read %s: %w", name, err)
		}
	case fs.ModeSymlink:
		o.Kind, o.Mode = link, 0
		if o.Target, err = t.root.Readlink(rel); err != nil {
			return object{}, named(name, err)
		}
	case fs.ModeDir:
		o.Kind = folder
	default:
		o.Kind = special
	}
	return o, nil
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// read returns the content of a file, links followed. It does not wait for the
// other end of a pipe.
func (t *tree) read(name string) ([]byte, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	f, err := t.root.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeCharDevice != 0:
		return nil, nil // a link to /dev/null hides a file of settings
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	}
	return io.ReadAll(f)
}

// stat is what stat(2) says on the node, links followed.
func (t *tree) stat(name string) (fs.FileInfo, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return t.root.Stat(rel)
}

// list returns the names in a folder, in order; none when it is not there.
func (t *tree) list(name string) ([]string, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(t.root.FS(), rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// writable says why nothing can be created at name, or nil. It asks the
// deepest folder of it that is there.
func (t *tree) writable(name string) error {
	f, dir, err := t.deepest(path.Dir(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Faccessat(int(f.Fd()), ".", unix.W_OK|unix.X_OK, 0); err != nil {
		return fmt.Errorf("cannot write in %s: %w", dir, err)
	}
	return nil
}

// deepest opens a folder, or the deepest one above it that is there, and says
// which it is.
func (t *tree) deepest(dir string) (*os.File, string, error) {
	for ; ; dir = path.Dir(dir) {
		rel, err := t.resolve(dir, true)
		if err != nil {
			return nil, "", named(dir, err)
		}
		f, err := t.root.Open(rel)
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) && dir != "/" {
			continue
		}
		return f, dir, named(dir, err)
	}
}

// missing returns the folders that have to be made for name to be one,
// outermost first.
func (t *tree) missing(name string) ([]string, error) {
	var names []string
	for dir := name; dir != "/"; dir = path.Dir(dir) {
		info, err := t.stat(dir)
		if err == nil && !info.IsDir() {
			return nil, fmt.Errorf("%s is not a folder", dir)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, named(dir, err)
		}
		if o, err := t.look(dir); err != nil || o.Kind == link {
			return nil, cmp.Or(err, fmt.Errorf("%s is a link to %s, which is not there: make that folder first", dir, o.Target))
		}
		names = append([]string{dir}, names...)
	}
	return names, nil
}

// mkdir makes one folder, mode 0755 whatever the umask.
func (t *tree) mkdir(name string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return named(name, err)
	}
	err = t.opMkdir(rel)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = t.opLabel(name, rel)
	}
	if err == nil {
		err = t.opChmod(rel, 0o755)
	}
	if err != nil {
		return named(name, err)
	}
	return t.syncFolder(path.Dir(name))
}

// create writes a new file in full and syncs it. What stood there is removed
// first: it is for names that are the installer's own.
func (t *tree) create(name string, mode fs.FileMode, from io.Reader) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return named(name, err)
	}
	if err := t.removeAll(rel); err != nil {
		return named(name, err)
	}
	f, err := t.opCreate(rel)
	if err != nil {
		return named(name, err)
	}
	defer f.Close()
	err = t.opLabel(name, rel)
	if err == nil {
		err = f.fill(from, mode, true)
	}
	if err != nil {
		_ = t.opRemove(rel) // no half of it is left behind on a full disk
		return named(name, err)
	}
	return nil
}

// write puts a file at name whole or not at all.
func (t *tree) write(name string, mode fs.FileMode, from io.Reader) error {
	if err := t.create(newName(name), mode, from); err != nil {
		return err
	}
	return t.rename(newName(name), name)
}

// symlink puts a link at name whole or not at all.
func (t *tree) symlink(target, name string) error {
	rel, err := t.resolve(newName(name), false)
	if err != nil {
		return named(name, err)
	}
	if err := t.removeAll(rel); err != nil {
		return named(name, err)
	}
	if err := t.opSymlink(target, rel); err != nil {
		return named(name, err)
	}
	if err := t.opLabel(name, rel); err != nil {
		return named(name, err)
	}
	return t.rename(newName(name), name)
}

func (t *tree) rename(from, to string) error {
	a, err := t.resolve(from, false)
	if err != nil {
		return named(to, err)
	}
	b, err := t.resolve(to, false)
	if err != nil {
		return named(to, err)
	}
	if err := t.opRename(a, b); err != nil {
		return named(to, err)
	}
	return t.syncFolder(path.Dir(to))
}

// freeName returns the first name for keeping what stands at name that nobody
// uses, or under which it is kept already.
func (t *tree) freeName(name string) (string, error) {
	for i := 1; ; i++ {
		as := name + beforeSuffix
		if i > 1 {
			as += "." + strconv.Itoa(i)
		}
		o, err := t.look(as)
		if err != nil || o.Kind == absent || t.sameFile(name, as) {
			return as, err
		}
	}
}

// keep gives what stands at name a second name (a hard link: content, owner,
// times, labels and all) under which it survives being replaced. Nothing is
// done where something stands there: freeName knows what.
func (t *tree) keep(name, as string) error {
	if o, err := t.look(as); err != nil || o.Kind != absent {
		return err
	}
	a, err := t.resolve(name, false)
	if err != nil {
		return named(name, err)
	}
	b, err := t.resolve(as, false)
	if err != nil {
		return named(name, err)
	}
	if err := t.opLink(a, b); err != nil {
		return named(name, err)
	}
	return t.syncFolder(path.Dir(name))
}

// sameFile says whether two names are one file.
func (t *tree) sameFile(a, b string) bool {
	ra, errA := t.resolve(a, false)
	rb, errB := t.resolve(b, false)
	if errA != nil || errB != nil {
		return false
	}
	ia, errA := t.root.Lstat(ra)
	ib, errB := t.root.Lstat(rb)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

// remove takes away a name, a folder with all that is in it. It is no error
// when there is none.
func (t *tree) remove(name string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return named(name, err)
	}
	if _, err := t.root.Lstat(rel); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err := t.removeAll(rel); err != nil {
		return named(name, err)
	}
	return t.syncFolder(path.Dir(name))
}

// discard takes away a folder whole: by one rename first, so that it is never
// half there.
func (t *tree) discard(name string) error {
	if o, err := t.look(name); err != nil || o.Kind == absent {
		return err
	}
	if err := t.rename(name, newName(name)); err != nil {
		return err
	}
	return t.remove(newName(name))
}

// removeAll takes away a name, a folder with all that is in it, without
// making that durable.
func (t *tree) removeAll(rel string) error {
	info, err := t.root.Lstat(rel)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		entries, err := fs.ReadDir(t.root.FS(), rel)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := t.removeAll(path.Join(rel, e.Name())); err != nil {
				return err
			}
		}
	}
	return t.opRemove(rel)
}

// rmdir takes away an empty folder and says whether it is gone. What is no
// folder stays: somebody has put a link there since.
func (t *tree) rmdir(name string) (bool, error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return false, named(name, err)
	}
	err = t.opRmdir(rel)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case err != nil:
		return false, named(name, err)
	}
	return true, t.syncFolder(path.Dir(name))
}

// copyFolder copies a folder of this machine to name, which is the
// installer's own: what stands there goes first. One syncfs at the end is
// cheaper than an fsync for each of some hundred libraries.
func (t *tree) copyFolder(name, from string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return named(name, err)
	}
	if err := t.removeAll(rel); err != nil {
		return named(name, err)
	}
	src, err := os.OpenRoot(from)
	if err != nil {
		return named(name, err)
	}
	defer src.Close()
	err = fs.WalkDir(src.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := path.Join(rel, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			if err := t.opMkdir(to); err != nil {
				return err
			}
			if err := t.opLabel(path.Join(name, p), to); err != nil {
				return err
			}
			return t.opChmod(to, info.Mode().Perm())
		case fs.ModeSymlink:
			target, err := src.Readlink(p)
			if err != nil {
				return err
			}
			if err := t.opSymlink(target, to); err != nil {
				return err
			}
			return t.opLabel(path.Join(name, p), to)
		case 0:
			return t.copyFile(src, p, path.Join(name, p), to, info.Mode().Perm())
		}
		return fmt.Errorf("%s/%s is neither file, folder nor link", from, p)
	})
	if err != nil {
		_ = t.removeAll(rel) // no half of it is left behind on a full disk
		return named(name, err)
	}
	f, err := t.root.Open(rel)
	if err != nil {
		return named(name, err)
	}
	defer f.Close()
	if err := t.do(change{op: "syncfs", name: rel}, func() error { return unix.Syncfs(int(f.Fd())) }); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

func (t *tree) copyFile(src *os.Root, from, name, to string, mode fs.FileMode) error {
	in, err := src.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := t.opCreate(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := t.opLabel(name, to); err != nil {
		return err
	}
	return out.fill(in, mode, false)
}

// syncFolder makes the names in a folder durable: a rename alone is not.
func (t *tree) syncFolder(name string) error {
	rel, err := t.resolve(name, true)
	if err != nil {
		return named(name, err)
	}
	f, err := t.root.Open(rel)
	if err != nil {
		return named(name, err)
	}
	defer f.Close()
	// Some file systems cannot sync a folder; nothing can be done then.
	if err := t.do(change{op: "sync", name: rel}, f.Sync); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// named puts the node's name of a file before the reason: the system call
// and the path relative to the root, which os adds, help nobody.
func named(name string, err error) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		err = p.Err
	} else if l := new(os.LinkError); errors.As(err, &l) {
		err = l.Err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// lookPayload says what stands at name, a payload with all that is in it: its
// digest is the one of the manifest that these files would have.
func (t *tree) lookPayload(name string) (object, error) {
	o, err := t.look(name)
	if err != nil || o.Kind != folder {
		return o, err
	}
	rel, err := t.resolve(name, false)
	if err != nil {
		return object{}, named(name, err)
	}
	sub, err := t.root.OpenRoot(rel)
	if err != nil {
		return object{}, named(name, err)
	}
	defer sub.Close()
	m, err := payload.Scan(sub.FS())
	if err != nil {
		return object{}, named(name, err)
	}
	o.Kind = payloadFolder
	// Without the manifest that belongs to it the payload is not whole.
	var written payload.Manifest
	if text, err := sub.ReadFile(payload.ManifestName); err == nil && json.Unmarshal(text, &written) == nil && written.Digest == m.Digest {
		o.Digest = m.Digest
	}
	return o, nil
}
