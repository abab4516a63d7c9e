package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

// A fact is one thing about a node that status tells and uninstall takes
// back. It needs nothing but the node for that: the payload that was
// installed and the options of that day are gone by then.
type fact interface {
	// name is what it is about, as a person calls it: for a file its path.
	name() string
	// check looks at the node, compares and changes nothing. It is also the
	// proof after apply.
	check(ctx context.Context, n *Node) (state, error)
	// undo takes back what apply did, and says what was done; "" is nothing.
	// Those of files come first, the last made first; then those of systemd,
	// which reads them.
	undo(ctx context.Context, n *Node) (done string, err error)
}

// A step is a fact that install brings about. Plan, install, status and
// uninstall are loops that know nothing of what each step is about. A file is
// a fileStep, a link a linkStep: one line where the node's steps are listed.
type step interface {
	fact
	// apply makes it so where check said that it is not, and says what was
	// done.
	apply(ctx context.Context, n *Node) (done string, err error)
}

// placed is what the steps of files have in common: a path, whose entry in
// the record says how to take it back.
type placed struct {
	path string
}

func (p placed) name() string  { return p.path }
func (p placed) place() string { return p.path }

func (p placed) undo(_ context.Context, n *Node) (string, error) {
	if n.record == nil || n.record.find(p.path) == nil {
		return "", nil
	}
	return n.record.takeBack(n.tree, p.path)
}

// installed is a file, link or folder as the record knows it.
type installed struct {
	placed
	entry *entry
}

func (i installed) check(_ context.Context, n *Node) (state, error) {
	have, err := n.tree.look(i.path)
	if i.entry.Wrote.Kind == payloadFolder {
		have, err = n.tree.lookPayload(i.path)
	}
	if err != nil {
		return state{}, err
	}
	if why := differs(i.entry.Wrote, have); why != "" {
		return state{word: word(have), why: why}, nil
	}
	return good(""), nil
}

// lasting is for steps of which nothing is taken back: a proof, a loaded
// module, a running kubelet.
type lasting struct{}

func (lasting) undo(context.Context, *Node) (string, error) { return "", nil }

// A state is what check found.
type state struct {
	ok   bool
	word string // ok, missing, changed
	why  string // what is there, or what is wrong with it
	todo string // what apply would do
	diff string // unified, of a file whose text would change
	tell bool   // a proof: why is worth saying after an installation too
}

func good(why string) state  { return state{ok: true, word: "ok", why: why} }
func proof(why string) state { return state{ok: true, word: "ok", why: why, tell: true} }

// differs compares what is wanted at a path with what is there; "" is no
// difference. A file that is not root's could be changed by others.
func differs(want, have object) string {
	switch {
	case have.Kind == absent:
		return "not there"
	case want.Kind != have.Kind:
		return fmt.Sprintf("a %s, not a %s", have.Kind, want.Kind)
	case want.Target != have.Target:
		return fmt.Sprintf("points at %s, not at %s", have.Target, want.Target)
	case want.Digest != have.Digest:
		return "other content"
	case want.Kind == file && want.Mode != have.Mode:
		return fmt.Sprintf("mode %04o, not %04o", have.Mode, want.Mode)
	case want.Kind == file && have.UID != uint32(os.Geteuid()):
		return fmt.Sprintf("owned by uid %d", have.UID)
	}
	return ""
}

// differs compares what a step wants at a path with what is there, and with
// what the record expects there after an interruption.
func (n *Node) differs(name string, want, have object) string {
	why := differs(want, have)
	if e := n.entry(name); why == "" && e != nil && !e.Wrote.same(want) {
		why = "an interrupted run was about to replace it"
	}
	return why
}

func word(have object) string {
	if have.Kind == absent {
		return "missing"
	}
	return "changed"
}

// fileStep is a file with its content.
type fileStep struct {
	placed
	mode fs.FileMode
	text []byte // content, unless from is set
	from string // file of this machine that is copied
}

// textFile is a file of settings.
func textFile(name, text string) step {
	return fileStep{placed: placed{name}, mode: 0o644, text: []byte(text)}
}

// program is a file of this machine that can be run on the node.
func program(name, from string) step {
	return fileStep{placed: placed{name}, mode: 0o755, from: from}
}

func (s fileStep) open() (io.ReadCloser, error) {
	if s.from == "" {
		return io.NopCloser(bytes.NewReader(s.text)), nil
	}
	f, err := os.Open(s.from)
	return f, named(s.from, err)
}

func (s fileStep) want() (object, error) {
	r, err := s.open()
	if err != nil {
		return object{}, err
	}
	defer r.Close()
	sum, err := digest(r)
	return object{Kind: file, Mode: uint32(s.mode), UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Digest: sum}, named(s.from, err)
}

func (s fileStep) check(_ context.Context, n *Node) (state, error) {
	want, err := s.want()
	if err != nil {
		return state{}, err
	}
	have, err := n.tree.look(s.path)
	if err != nil {
		return state{}, err
	}
	if have.Kind == folder || have.Kind == special {
		return state{}, fmt.Errorf("%s is a %s: move it away, a file has to stand there", s.path, have.Kind)
	}
	why := n.differs(s.path, want, have)
	if why == "" {
		return good(""), nil
	}
	st := state{word: word(have), why: why, todo: "write " + s.path}
	keep, err := n.keeps(s.path, have, ", keep what stands there as ")
	if err != nil {
		return state{}, err
	}
	st.todo += keep
	if s.from == "" && want.Digest != have.Digest {
		var old []byte
		from := "/dev/null"
		if have.Kind == file {
			from = s.path
			if old, err = n.tree.read(s.path); err != nil {
				return state{}, named(s.path, err)
			}
		}
		if utf8.Valid(old) {
			st.diff = udiff.Unified(from, s.path, string(old), string(s.text))
		}
	}
	return st, nil
}

func (s fileStep) apply(_ context.Context, n *Node) (string, error) {
	want, err := s.want()
	if err != nil {
		return "", err
	}
	note, err := n.prepare(s.path, want)
	if err != nil {
		return "", err
	}
	r, err := s.open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	return s.path + " written" + note, n.tree.write(s.path, s.mode, r)
}

// linkStep is a symbolic link.
type linkStep struct {
	placed
	target string
}

// symlink is a link at name that points at target.
func symlink(name, target string) step { return linkStep{placed{name}, target} }

func (s linkStep) want() object { return object{Kind: link, Target: s.target} }

func (s linkStep) check(_ context.Context, n *Node) (state, error) {
	have, err := n.tree.look(s.path)
	if err != nil {
		return state{}, err
	}
	if have.Kind == folder || have.Kind == special {
		return state{}, fmt.Errorf("%s is a %s: move it away, a link has to stand there", s.path, have.Kind)
	}
	why := n.differs(s.path, s.want(), have)
	if why == "" {
		return good("-> " + s.target), nil
	}
	st := state{word: word(have), why: why, todo: fmt.Sprintf("link %s -> %s", s.path, s.target)}
	keep, err := n.keeps(s.path, have, ", keep what stands there as ")
	if err != nil {
		return state{}, err
	}
	st.todo += keep
	return st, nil
}

func (s linkStep) apply(_ context.Context, n *Node) (string, error) {
	note, err := n.prepare(s.path, s.want())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s -> %s%s", s.path, s.target, note), n.tree.symlink(s.target, s.path)
}

// payloadStep is the folder with rbd, its libraries and plugins.
type payloadStep struct {
	placed
	from     string // folder of this machine
	manifest *payload.Manifest
}

func (s payloadStep) want() object { return object{Kind: payloadFolder, Digest: s.manifest.Digest} }
func (s payloadStep) size() string { return fmt.Sprintf("%.1f MB", float64(s.manifest.Size)/1e6) }

func (s payloadStep) check(_ context.Context, n *Node) (state, error) {
	have, err := n.tree.lookPayload(s.path)
	if err != nil {
		return state{}, err
	}
	why := differs(s.want(), have)
	if why == "" {
		return good(""), nil
	}
	return state{word: word(have), why: why, todo: fmt.Sprintf("copy %s to %s, %s", s.from, s.path, s.size())}, nil
}

func (s payloadStep) apply(_ context.Context, n *Node) (string, error) {
	if _, err := n.prepare(s.path, s.want()); err != nil {
		return "", err
	}
	stage := newName(s.path)
	if err := n.tree.copyFolder(stage, s.from); err != nil {
		return "", err
	}
	got, err := n.tree.lookPayload(stage)
	if err == nil && !got.same(s.want()) {
		err = fmt.Errorf("%s is damaged: %w", s.from, cmp.Or(payload.Verify(s.from), errors.New("its files changed while they were copied")))
	}
	if err != nil {
		_ = n.tree.remove(stage) // the next run does it if this one cannot
		return "", err
	}
	// A damaged payload of this name cannot be replaced by rename alone.
	if err := n.tree.remove(s.path); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s copied, %s", s.path, s.size()), n.tree.rename(stage, s.path)
}

// prepare gets a path ready for what will be renamed onto it: the record knows
// first, the folders are there, what belongs to somebody else is kept.
func (n *Node) prepare(name string, want object) (note string, err error) {
	if n.record == nil {
		if n.record, err = newRecord(n.tree, n.Prefix, n.Unit); err != nil {
			return "", err
		}
	}
	n.record.turnTo(n.next)
	if err := n.record.makeFolders(n.tree, path.Dir(name)); err != nil {
		return "", err
	}
	now, err := n.tree.look(name)
	if err != nil {
		return "", err
	}
	if want.Kind == payloadFolder {
		now = object{Kind: absent} // no name of somebody else's: nothing to keep
	}
	if note, err = n.keeps(name, now, ", what stood there is kept as "); err != nil {
		return "", err
	}
	return note, n.record.replace(n.tree, name, want, now)
}

// keeps says under which name what stands at a path is kept, "" for nothing.
func (n *Node) keeps(name string, have object, say string) (string, error) {
	as, err := n.entry(name).keepAs(n.tree, name, have)
	if as == "" {
		return "", err
	}
	return say + as, err
}
