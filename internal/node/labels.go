package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// labels are the SELinux labels of what stands below the prefix. They are
// those that the node's own /usr has for the same kind of thing: no name of
// any policy stands here, and where a policy has other names, so have these.
//
// Elsewhere, in /etc, a file gets the label of its folder. The kernel does not
// see to that by itself: who makes the file has a say, too, and what an
// installer that systemd has started makes in /etc may be something that
// systemd's own services cannot read.
type labels struct {
	prefix                                 string
	data, program, library, loader, manual string
}

const labelName = "security.selinux" // xattr(7)

// readLabels returns nil where nothing is labelled. On a running node its
// mounts tell: the kernel says "seclabel" for a file system when SELinux has a
// policy and the file system takes labels. In a container that holds, too,
// while /sys/fs/selinux is not in sight. In a folder with a node, labels on
// its files are all that there is to look at.
func readLabels(t *tree, prefix string, live bool) (*labels, error) {
	if live {
		if takes, err := t.takesLabels(prefix); err != nil || !takes {
			return nil, err
		}
	}
	l := &labels{prefix: prefix}
	loaders, err := t.glob("/usr/lib64/ld-linux*.so*", "/usr/lib/ld-linux*.so*")
	if err != nil {
		return nil, err
	}
	for _, like := range []struct {
		label *string
		names []string // the first that is there
	}{
		{&l.data, []string{"/usr"}},
		{&l.program, []string{"/usr/bin", "/usr"}},
		{&l.library, []string{"/usr/lib", "/usr"}},
		{&l.loader, append(loaders, "/usr/lib", "/usr")},
		{&l.manual, []string{"/usr/share/man", "/usr"}},
	} {
		for _, name := range like.names {
			if *like.label != "" {
				break
			}
			rel, err := t.resolve(name, true)
			if err != nil {
				return nil, named(name, err)
			}
			if *like.label, err = t.label(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, named(name, err)
			}
		}
	}
	if labelType(l.data) == labelType(l.program) {
		// None at all, or one for the whole tree, as a folder of the building
		// machine has it: nothing that a program would need is told by it.
		return nil, nil
	}
	return l, nil
}

// wantLabel returns the label for what is made at name, "" for none.
func (t *tree) wantLabel(name string) (string, error) {
	if t.labels == nil {
		return "", nil
	}
	if want := t.labels.want(finalName(name)); want != "" {
		return want, nil
	}
	rel, err := t.resolve(path.Dir(name), true)
	if err != nil {
		return "", err
	}
	return t.label(rel)
}

// want returns the label of what stands at name in the prefix, "" for all
// else. The prefix is laid out as /usr is, and the payload in it once more.
func (l *labels) want(name string) string {
	rest, below := strings.CutPrefix(name+"/", l.prefix+"/")
	if !below {
		return ""
	}
	for _, part := range parts(rest) {
		switch part {
		case "bin", "sbin":
			return l.program
		case "lib", "lib64":
			if ok, _ := path.Match("ld-*.so*", path.Base(name)); ok {
				return l.loader
			}
			return l.library
		case "man":
			return l.manual
		}
	}
	return l.data
}

// finalName is the name that something on its way will have.
func finalName(name string) string {
	all := strings.Split(name, "/")
	for i, part := range all {
		if part, ok := strings.CutSuffix(part, newSuffix); ok {
			all[i] = strings.TrimPrefix(part, ".")
		}
	}
	return strings.Join(all, "/")
}

// labelFits says whether what stands at name can be used with the label that
// it has, which may be another one than wantLabel names: a relabel of the
// system goes by the policy's list of paths, and the two must not change it
// back and forth.
func (t *tree) labelFits(name string, mode fs.FileMode, have, want string) (bool, error) {
	is := func(label string) bool { return labelType(label) == labelType(have) }
	l, inPrefix := t.labels, t.labels.want(name) != ""
	switch {
	case is(want):
		return true, nil
	case have == "": // made, and cut off before it had one
		return false, nil
	case !mode.IsRegular():
		// A folder or a link is only gone through.
		return !inPrefix || slices.ContainsFunc([]string{l.data, l.program, l.library, l.manual}, is), nil
	case inPrefix:
		// Policies know a loader in /usr only, and it works as any library does.
		return want == l.loader && is(l.library), nil
	}
	// Policies have labels of their own for single files in /etc, by their names:
	// any that a file of the same kind has in /usr/lib will do.
	kin := path.Join("/usr/lib", strings.TrimPrefix(path.Dir(name), "/etc"))
	files, err := t.list(kin)
	for _, file := range files {
		rel, resolveErr := t.resolve(path.Join(kin, file), false)
		label, labelErr := t.label(rel)
		if err = cmp.Or(err, resolveErr, labelErr); err != nil || is(label) {
			return err == nil, err
		}
	}
	return false, err
}

// labelType is the part of a label that decides on access: user:role:type:level.
func labelType(label string) string {
	if fields := strings.SplitN(label, ":", 4); len(fields) > 2 {
		return fields[2]
	}
	return label
}

// takesLabels says whether the file system of a folder, or of the deepest one
// above it that is there, has labels of SELinux and lets them be set.
func (t *tree) takesLabels(name string) (bool, error) {
	dir, _, err := t.deepest(name)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return false, fmt.Errorf("mount of %s: %w", name, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	id := strconv.FormatUint(st.Mnt_id, 10)
	for line := range strings.Lines(string(mounts)) {
		if before, after, _ := strings.Cut(line, " - "); strings.HasPrefix(before, id+" ") {
			fields := strings.Fields(after) // type, source, options of the file system: proc_pid_mountinfo(5)
			return slices.Contains(strings.Split(fields[len(fields)-1], ","), "seclabel"), nil
		}
	}
	return false, nil
}

// glob returns the names that match, the last part of a pattern being one.
func (t *tree) glob(patterns ...string) ([]string, error) {
	var found []string
	for _, pattern := range patterns {
		names, err := t.list(path.Dir(pattern))
		if err != nil {
			return nil, named(path.Dir(pattern), err)
		}
		for _, name := range names {
			if ok, _ := path.Match(path.Base(pattern), name); ok {
				found = append(found, path.Join(path.Dir(pattern), name))
			}
		}
	}
	return found, nil
}

// inFolder calls do with a path to rel of which no part but the last can be a
// link: the system calls for labels know no folder to start from.
func (t *tree) inFolder(rel string, do func(path string) error) error {
	dir, err := t.root.Open(path.Dir(rel))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), path.Base(rel)))
}

// label returns the label of a file, folder or link, "" where it has none.
func (t *tree) label(rel string) (label string, err error) {
	err = t.inFolder(rel, func(path string) error {
		buf := make([]byte, 4096) // a page is the most that the kernel takes
		n, err := unix.Lgetxattr(path, labelName, buf)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		label = strings.TrimRight(string(buf[:max(n, 0)]), "\x00")
		return err
	})
	return label, err
}

// opLabel gives what was just made at name, which is rel, the label of its
// kind.
func (t *tree) opLabel(name, rel string) error {
	want, err := t.wantLabel(name)
	if err != nil || want == "" {
		return err
	}
	return t.do(change{op: "label", name: rel, to: want}, func() error {
		return t.inFolder(rel, func(path string) error {
			// With the zero at its end, as libselinux writes it.
			if err := unix.Lsetxattr(path, labelName, []byte(want+"\x00"), 0); err != nil {
				return fmt.Errorf("SELinux label %s: %w", want, err)
			}
			return nil
		})
	})
}

// labelStep mends labels that somebody has changed. What the installer makes
// has its label before it gets its name.
type labelStep struct{ lasting }

func (labelStep) name() string { return "SELinux labels" }

// A mislabelled thing is one that the installer made.
type mislabelled struct{ name, have, want string }

// find returns what has a wrong label, and mends it on the way if it is to: the
// label of a folder in /etc, outermost first, is that of what stands in it.
func (labelStep) find(n *Node, mend bool) (wrong []mislabelled, err error) {
	if n.record == nil {
		return nil, nil
	}
	look := func(name string) error {
		rel, err := n.tree.resolve(name, false)
		if err != nil {
			return err
		}
		info, err := n.tree.root.Lstat(rel)
		if err != nil {
			return err
		}
		want, err := n.tree.wantLabel(name)
		if err != nil {
			return err
		}
		have, err := n.tree.label(rel)
		if err != nil {
			return err
		}
		fits, err := n.tree.labelFits(name, info.Mode(), have, want)
		if err != nil || fits {
			return err
		}
		wrong = append(wrong, mislabelled{name, have, want})
		if mend {
			return n.tree.opLabel(name, rel)
		}
		return nil
	}
	names := append(slices.Clone(n.record.Folders), n.record.path)
	for _, e := range n.record.Entries {
		names = append(names, e.Path)
		if e.Wrote.Kind != payloadFolder {
			continue
		}
		rel, err := n.tree.resolve(e.Path, false)
		if err != nil {
			return nil, named(e.Path, err)
		}
		err = fs.WalkDir(n.tree.root.FS(), rel, func(p string, _ fs.DirEntry, err error) error {
			if err == nil && p != rel {
				names = append(names, path.Join(e.Path, strings.TrimPrefix(p, rel)))
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, named(e.Path, err)
		}
	}
	for _, name := range names {
		// That something is not there is for the step which makes it.
		if err := look(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return nil, named(name, err)
		}
	}
	return wrong, nil
}

func (s labelStep) check(_ context.Context, n *Node) (state, error) {
	wrong, err := s.find(n, false)
	if err != nil || len(wrong) == 0 {
		return good(""), err
	}
	first := wrong[0]
	return state{
		word: "changed",
		why:  fmt.Sprintf("%s has %s, not %s", first.name, labelType(first.have), labelType(first.want)),
		todo: "set the SELinux label of " + andMore(wrong),
	}, nil
}

func andMore(wrong []mislabelled) string {
	if len(wrong) == 1 {
		return wrong[0].name
	}
	return fmt.Sprintf("%s and %d more", wrong[0].name, len(wrong)-1)
}

func (s labelStep) apply(_ context.Context, n *Node) (string, error) {
	wrong, err := s.find(n, true)
	if err != nil {
		return "", err
	}
	return "SELinux label set, of " + andMore(wrong), nil
}
