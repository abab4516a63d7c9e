package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"
)

// A record says what the installer put on a node and what stood there
// before. It is written before the first change and before each further one,
// so an installation that was cut off anywhere can be finished or taken back.
type record struct {
	Version  int      `json:"version"`      // of this format
	Complete bool     `json:"complete"`     // every step was done and proven
	Unit     string   `json:"kubelet_unit"` // whose service was looked after
	Release  release  `json:"release"`      // the current one, or the one that is on its way
	Previous *release `json:"previous,omitempty"`
	Folders  []string `json:"folders,omitempty"` // made by the installer, outermost first
	Entries  []*entry `json:"entries"`           // in the order in which they were put

	// Deaf is when that kubelet was started which the installer restarted in
	// vain, in microseconds since 1970: it is not restarted again and again.
	Deaf int64 `json:"kubelet_restarted_in_vain,omitempty"`

	// Restarted is when kubelet was last restarted, in microseconds since 1970.
	Restarted int64 `json:"kubelet_restarted,omitempty"`

	// Reload is when the installer last had systemd read its configuration.
	Reload *moment `json:"systemd_reloaded,omitempty"`

	path string // of the record itself
}

// A moment is a time that stays true when somebody sets the clock.
type moment struct {
	Boot string `json:"boot"`      // which one: /proc/sys/kernel/random/boot_id
	At   int64  `json:"monotonic"` // microseconds of CLOCK_MONOTONIC
}

type entry struct {
	Path   string  `json:"path"`
	Wrote  object  `json:"wrote"`
	Was    *object `json:"was,omitempty"`          // what an earlier run of the installer wrote
	Before object  `json:"before"`                 // of somebody else, or absent
	Backup string  `json:"backup,omitempty"`       // the name under which Before is kept
	Left   string  `json:"left_in_boot,omitempty"` // of a payload: the boot in which it was current for the last time
}

const recordVersion = 1

// ours says whether an object is what the installer put at this path.
func (e *entry) ours(o object) bool {
	return o.same(e.Wrote) || e.Was != nil && o.same(*e.Was)
}

func (r *record) find(name string) *entry {
	for _, e := range r.Entries {
		if e.Path == name {
			return e
		}
	}
	return nil
}

func (r *record) forget(name string) {
	r.Entries = slices.DeleteFunc(r.Entries, func(e *entry) bool { return e.Path == name })
}

// clone returns a record to think with.
func (r *record) clone() *record {
	c := *r
	c.Entries = make([]*entry, len(r.Entries))
	for i, e := range r.Entries {
		d := *e
		c.Entries[i] = &d
	}
	return &c
}

func home(prefix string) string       { return path.Join(prefix, "rbd") }
func recordPath(prefix string) string { return path.Join(home(prefix), "installed.json") }

// readRecord returns nil when nothing was installed.
func readRecord(t *tree, prefix string) (*record, error) {
	name := recordPath(prefix)
	data, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, named(name, err)
	}
	r := &record{path: name}
	err = json.Unmarshal(data, r)
	if err == nil && r.Version == 0 {
		err = errors.New("it has no version")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: move it away and run install, which writes it again", name, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("%s has version %d, written by another installer: use that one", name, r.Version)
	}
	return r, nil
}

// lostRecord says whether an installation is there and its record is not: the
// link to a payload, which comes after the record and goes before it, is.
func lostRecord(t *tree, prefix string) (bool, error) {
	if r, err := t.look(recordPath(prefix)); err != nil || r.Kind != absent {
		return false, err
	}
	current, err := t.look(path.Join(home(prefix), "current"))
	if err != nil || current.Kind != link {
		return false, err
	}
	version, err := t.look(path.Join(home(prefix), current.Target))
	return version.Kind == folder, err
}

// recordStep writes a record that is lost: nobody could take the installation
// back without it.
type recordStep struct {
	placed
	others []step // of the installation
}

func (s recordStep) check(_ context.Context, n *Node) (state, error) {
	lost, err := lostRecord(n.tree, n.Prefix)
	if err != nil || !lost {
		return good(""), err
	}
	return state{word: "missing", why: "lost", todo: "write " + s.path + " again"}, nil
}

func (s recordStep) apply(ctx context.Context, n *Node) (string, error) {
	r := &record{Version: recordVersion, Unit: n.Unit, path: s.path, Entries: []*entry{}}
	if err := r.gather(ctx, n, s.others); err != nil {
		return "", err
	}
	if err := r.save(n.tree); err != nil {
		return "", err
	}
	n.record = r
	return s.path + " was lost and is written again: what stood there before the installation is not known", nil
}

// gather fills a record with what is there of an installation: what is named by
// its content and what leads to that, what has a name of the installer's own,
// and what is as it should be.
func (r *record) gather(ctx context.Context, n *Node, steps []step) error {
	add := func(name string, ours func(object) bool) error {
		o, err := n.tree.lookPayload(name)
		if err == nil && r.find(name) == nil && o.Kind != absent && ours(o) {
			r.Entries = append(r.Entries, &entry{Path: name, Wrote: o, Before: object{Kind: absent}})
		}
		return err
	}
	id := func(o object) string { return o.Digest[:min(12, len(o.Digest))] }
	r.Folders = append(r.Folders, home(n.Prefix))
	for _, dir := range []string{path.Dir(n.version("x")), path.Dir(n.launcher("x"))} {
		names, err := n.tree.list(dir)
		if err != nil {
			return named(dir, err)
		}
		r.Folders = append(r.Folders, dir)
		for _, name := range names {
			if err := add(path.Join(dir, name), func(o object) bool { return id(o) == name }); err != nil {
				return err
			}
		}
	}
	u := unit{name: n.Unit}
	always := func(object) bool { return true }
	err := errors.Join(
		add(n.current(), func(o object) bool { return r.find(path.Join(home(n.Prefix), o.Target)) != nil }),
		add(n.command(), func(o object) bool { return r.find(n.launcher(id(o))) != nil }),
		add(u.environmentFile(), always),
		add(u.dropIn(), always))
	if err != nil {
		return err
	}
	for _, s := range steps {
		p, ok := s.(interface{ place() string })
		if !ok {
			continue
		}
		st, err := s.check(ctx, n)
		if err == nil && st.ok {
			err = add(p.place(), always)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *record) encode() []byte {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // plain data always encodes
	}
	return append(data, '\n')
}

func (r *record) save(t *tree) error {
	return t.write(r.path, 0o644, bytes.NewReader(r.encode()))
}

// newRecord puts an empty record on the node. Folders that are missing on
// the way come with the record inside, by one rename: there is no moment at
// which they stand there and nobody knows whose they are.
func newRecord(t *tree, prefix, unit string) (*record, error) {
	r := &record{Version: recordVersion, Unit: unit, path: recordPath(prefix), Entries: []*entry{}}
	var err error
	if r.Folders, err = t.missing(home(prefix)); err != nil {
		return nil, err
	}
	if len(r.Folders) == 0 {
		return r, r.save(t)
	}
	top := r.Folders[0]
	stage := newName(top)
	if err := t.remove(stage); err != nil {
		return nil, err
	}
	for _, dir := range r.Folders {
		if err := t.mkdir(stage + dir[len(top):]); err != nil {
			return nil, err
		}
	}
	if err := t.create(stage+r.path[len(top):], 0o644, bytes.NewReader(r.encode())); err != nil {
		_ = t.remove(stage) // the next run does it if this one cannot
		return nil, err
	}
	if err := t.syncFolder(stage + path.Dir(r.path)[len(top):]); err != nil {
		return nil, err
	}
	return r, t.rename(stage, top)
}

// drop removes the record, the last thing of an installation, with the
// folders around it that the installer made and that nobody else uses. A link
// that has taken the place of such a folder is somebody else's.
func (r *record) drop(t *tree) error {
	top := r.path
	for {
		up := path.Dir(top)
		o, err := t.look(up)
		if err != nil {
			return err
		}
		names, err := t.list(up)
		if err != nil {
			return named(up, err)
		}
		if o.Kind != folder || !slices.Contains(r.Folders, up) || len(names) != 1 {
			break
		}
		top = up
	}
	return t.discard(top)
}

// sweep removes what a cut-off newRecord or drop may have left behind.
func sweep(t *tree, prefix string) error {
	for dir := recordPath(prefix); dir != "/"; dir = path.Dir(dir) {
		if err := t.remove(newName(dir)); err != nil {
			return err
		}
	}
	return nil
}

// makeFolders makes name and the folders above it and remembers which.
func (r *record) makeFolders(t *tree, name string) error {
	dirs, err := t.missing(name)
	if err != nil || len(dirs) == 0 {
		return err
	}
	for _, dir := range dirs {
		if !slices.Contains(r.Folders, dir) {
			r.Folders = append(r.Folders, dir)
		}
	}
	if err := r.save(t); err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := t.mkdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// replace notes that wrote is about to stand at name, where now is what is
// there, and keeps what belongs to somebody else.
func (r *record) replace(t *tree, name string, wrote, now object) error {
	e := r.find(name)
	as, err := e.keepAs(t, name, now)
	if err != nil {
		return err
	}
	if e == nil {
		e = &entry{Path: name, Before: object{Kind: absent}}
		r.Entries = append(r.Entries, e)
	}
	e.Wrote = wrote
	switch {
	case as != "":
		e.Before, e.Backup = now, as
	case now.Kind != absent:
		e.Was = &now
	}
	r.Complete = false
	if err := r.save(t); err != nil {
		return err
	}
	if as != "" {
		return t.keep(name, as)
	}
	return nil
}

// keepAs returns the name under which what stands at a path is kept when it is
// replaced, "" when it is not somebody else's. Nothing that is kept is ever
// removed for it; what is put back there again and again is kept once. e is
// nil where the record does not know the path.
func (e *entry) keepAs(t *tree, name string, now object) (string, error) {
	switch {
	case now.Kind == absent:
		return "", nil
	case e == nil:
	case now != e.Before && e.ours(now):
		return "", nil
	case now == e.Before && e.Backup != "":
		if kept, err := t.look(e.Backup); err != nil || kept == now {
			return e.Backup, err
		}
	}
	return t.freeName(name)
}

// takeBack makes a path what it was before the first install and says what
// it did. The record keeps its entry: what is taken back can be cut off and
// taken back again.
func (r *record) takeBack(t *tree, name string) (string, error) {
	note, err := r.find(name).takeBack(t)
	return cmp.Or(note, name+" removed"), err
}

// takeBack returns what a person should know, or "".
func (e *entry) takeBack(t *tree) (string, error) {
	if err := t.remove(newName(e.Path)); err != nil {
		return "", err
	}
	if e.Wrote.Kind == payloadFolder {
		// A payload is named by its content and nobody else's, so what
		// stands under its name goes whatever became of it.
		return "", t.discard(e.Path)
	}
	now, err := t.look(e.Path)
	if err != nil {
		return "", err
	}
	kept := object{Kind: absent}
	if e.Backup != "" {
		if kept, err = t.look(e.Backup); err != nil {
			return "", err
		}
	}
	switch {
	case kept.Kind == absent && e.Backup != "":
		// Cut off before it was replaced, or taken back already.
		if now == e.Before || !e.ours(now) {
			return "", nil
		}
		return fmt.Sprintf("%s removed, but what stood there before is lost: %s is gone", e.Path, e.Backup), t.remove(e.Path)
	case e.Backup != "" && t.sameFile(e.Path, e.Backup):
		return "", t.remove(e.Backup) // kept, but not yet replaced
	case e.Backup != "" && (now.Kind == absent || e.ours(now) || now == kept):
		return fmt.Sprintf("%s is what it was before", e.Path), t.rename(e.Backup, e.Path)
	case now.Kind == absent:
		return "", nil
	case e.ours(now):
		return "", t.remove(e.Path)
	}
	note := fmt.Sprintf("%s left alone: somebody changed it since it was installed", e.Path)
	if e.Backup != "" {
		note += "; what stood there before is " + e.Backup
	}
	return note, nil
}
