package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// hints says what to do about an error, in no, one or more lines. They are
// printed after the lines of the genuine tool, and only on failures.
func hints(c *call, err error) []string {
	var lines []string
	for _, hint := range []func(*call, error) []string{connectHints, deviceHints, nameHints, imageHints} {
		lines = append(lines, hint(c, err)...)
	}
	if c.making != nil {
		lines = append(lines, c.making.hints(err)...)
	}
	return lines
}

// connectHints explains why a cluster does not take this client.
func connectHints(c *call, err error) []string {
	if !errors.Is(err, ceph.ErrConnect) {
		return nil
	}
	name := c.cluster.Name()
	if errors.Is(err, ceph.ErrKey) {
		return []string{ceph.ErrKey.Error()}
	}
	if c.cluster.Config("mon_host") == "" {
		return []string{"no monitor is known: give them with -m, or in the mon_host of a ceph.conf (-c)"}
	}
	switch errno.Code(err) {
	case syscall.EACCES, syscall.EPERM:
		return []string{fmt.Sprintf("the monitors refused %s: compare its key here with \"ceph auth get %s\"", name, name)}
	case syscall.ENOENT, syscall.EOPNOTSUPP:
		return []string{fmt.Sprintf("no key for %s: give it with --keyring or --keyfile; looked in %s", name, c.cluster.Config("keyring"))}
	case syscall.ETIMEDOUT, syscall.EINVAL, syscall.EHOSTUNREACH:
		return monitorHints(c)
	}
	return nil
}

// monitorHints tries every monitor and names those that do not answer.
func monitorHints(c *call) []string {
	monitors, err := c.cluster.Monitors()
	if err != nil {
		return []string{err.Error()}
	}
	lines := make([]string, len(monitors))
	var group sync.WaitGroup
	for i, m := range monitors {
		group.Go(func() {
			conn, err := net.DialTimeout("tcp", m.Addr.String(), 2*time.Second)
			if err != nil {
				lines[i] = fmt.Sprintf("monitor %s cannot be reached: %v", m.Addr, reason(err))
				return
			}
			conn.Close()
			lines[i] = fmt.Sprintf("monitor %s can be reached, but did not answer in time", m.Addr)
		})
	}
	group.Wait()
	return lines
}

// reason is an error of the network without what was dialled, which the line
// has already.
func reason(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no answer")
	}
	return err
}

// deviceHints explains what keeps the kernel from mapping.
func deviceHints(_ *call, err error) []string {
	var own *krbd.Error
	if !errors.As(err, &own) {
		return nil
	}
	if own.Hint != "" {
		return []string{own.Hint}
	}
	if _, err := os.Stat("/sys/bus/rbd"); errors.Is(err, os.ErrNotExist) && own.Errno == syscall.ENOENT {
		return []string{"this kernel has no rbd: load the module on the host (modprobe rbd), or install the package of kernel modules that has it"}
	}
	return nil
}

// imageHints explains what keeps an image from being changed or removed, and
// what a client that may not do something lacks.
func imageHints(c *call, err error) []string {
	code := errno.Code(err)
	name := c.cluster.Name()
	var file *fs.PathError
	switch {
	case errors.Is(err, ceph.ErrConnect):
		return nil
	case code == syscall.EPERM && fromCluster(err):
		return []string{fmt.Sprintf("%s lacks the capability: see \"ceph auth get %s\"; for images it is mon 'profile rbd' osd 'profile rbd pool=NAME'", name, name)}
	case code == syscall.ETIMEDOUT && fromCluster(err):
		return []string{"the cluster left a request without an answer: see \"ceph health detail\"; --timeout SECONDS waits longer, with 0 for ever"}
	case code == syscall.ESHUTDOWN:
		return []string{"this client was put on the blocklist: see \"ceph osd blocklist ls\"; what it had open has to be closed before it may come back"}
	case (code == syscall.ENOSPC || code == syscall.EDQUOT) && !errors.As(err, &file):
		return []string{"the pool or the cluster is full, or a quota is used up: see \"ceph df\" and \"ceph osd pool get-quota POOL\""}
	}
	command := strings.Join(c.line.Command.Path, " ")
	for _, rule := range imageRules {
		if rule.code == code && (rule.commands == nil || slices.Contains(rule.commands, command)) {
			if lines := aboutImage(c, rule.ask); len(lines) > 0 {
				return lines
			}
		}
	}
	return nil
}

// imageRules say what to ask an image where a command ends with an error.
var imageRules = []struct {
	code     syscall.Errno
	commands []string // nil for all
	ask      func(*call, spec.Spec, *rbd.Image) []string
}{
	{syscall.EBUSY, []string{"remove", "trash move", "migration prepare"}, watcherHints},
	{syscall.ENOTEMPTY, []string{"remove"}, snapHints},
	{syscall.EINVAL, []string{"resize"}, shrinkHints},
	{syscall.EBUSY, []string{"snap remove"}, protectedHints},
	{syscall.EBUSY, []string{"snap unprotect"}, childrenHints},
	{syscall.EINVAL, []string{"clone"}, unprotectedHints},
	{syscall.EINVAL, []string{"feature enable"}, featureHints},
	{syscall.ENOENT, []string{"snap remove", "snap rename", "snap rollback", "snap protect", "snap unprotect"}, snapNames},
	{syscall.EEXIST, []string{"snap create", "snap rename"}, snapNames},
	{syscall.EROFS, nil, lockHints},
}

// nameHints say what there is where a pool, a namespace or a snapshot is not,
// that an image is in the trash, and what to do about one that is there already.
func nameHints(c *call, err error) []string {
	var gone *missing
	switch {
	case errors.Is(err, ceph.ErrPool):
		conn, err := c.cluster.Connect()
		if err != nil {
			return nil
		}
		pools, err := conn.ListPools()
		return enumerated("pools of this cluster", pools, err)
	case errors.Is(err, ceph.ErrNamespace):
		pool, err := c.cluster.Pool(c.poolOfLine(), "")
		if err != nil {
			return nil
		}
		names, err := rbd.NamespaceList(pool)
		return enumerated("namespaces of this pool", names, err)
	case errors.As(err, &gone) && errno.Code(err) == syscall.ENOENT:
		return gone.hints()
	case errno.Code(err) == syscall.EEXIST && slices.Contains([]string{"create", "clone", "copy", "deep copy", "import", "rename"}, strings.Join(c.line.Command.Path, " ")):
		return []string{"an image of that name is there already: take another name, or look at it with \"rbd info\""}
	}
	return nil
}

// enumerated shows names, if not too many.
func enumerated(what string, names []string, err error) []string {
	const most = 20
	switch {
	case err != nil:
		return nil
	case len(names) == 0:
		return []string{what + ": none"}
	case len(names) > most:
		names = append(names[:most:most], "...")
	}
	return []string{what + ": " + strings.Join(names, ", ")}
}

// poolOfLine is the pool that the line names, "" for the default one.
func (c *call) poolOfLine() string {
	for _, text := range append([]string{c.String("image")}, c.Args().Slice()...) {
		if pool, _, ok := strings.Cut(text, "/"); ok {
			return pool
		}
	}
	return c.String("pool")
}

// hints says where an image is that is not where it was looked for, or which
// snapshots it has.
func (m *missing) hints() []string {
	if m.snap != "" {
		image, err := rbd.OpenImageReadOnly(m.pool, m.image, rbd.NoSnapshot)
		if err != nil {
			return nil
		}
		defer image.Close()
		return snapNames(nil, spec.Spec{}, image)
	}
	var lines []string
	trash, err := rbd.GetTrashList(m.pool)
	for _, i := range trash {
		if err == nil && i.Name == m.image {
			lines = append(lines, fmt.Sprintf("an image of that name is in the trash: \"rbd trash restore %s\" brings it back", i.Id))
		}
	}
	return lines
}

// fromCluster says that an error is an answer of librados or librbd, not a
// mistake in the line that has the same number.
func fromCluster(err error) bool {
	var own *errno.Error
	return !errors.As(err, &own) || own.Err != nil
}

// aboutImage opens the image of the line once more and asks it. Without an
// answer there is no hint.
func aboutImage(c *call, ask func(*call, spec.Spec, *rbd.Image) []string) []string {
	c.next = 0
	s, err := c.spec(spec.Form{Snap: spec.MaySnap})
	if err != nil {
		return nil
	}
	whole := s
	whole.Snap = ""
	image, err := c.open(whole, true)
	if err != nil {
		return nil
	}
	defer image.Close()
	return ask(c, s, image)
}

// watcherHints names the clients that have an image open.
func watcherHints(_ *call, _ spec.Spec, image *rbd.Image) []string {
	watchers, err := image.ListWatchers()
	if err != nil {
		return nil
	}
	var lines []string
	for _, w := range watchers {
		lines = append(lines, fmt.Sprintf("client.%d at %s has it open: unmap or close it there; "+
			"if that host is gone for good, \"ceph osd blocklist add %s\" frees it", w.Id, w.Addr, w.Addr))
	}
	return lines
}

// changedUnder names the other clients that have an image open whose content
// was put back or replaced: what they keep in memory is of before, and a file
// system that is mounted there is damaged by it. rbd does it without a word, so
// this comes after all that it says.
func (c *call) changedUnder(image *rbd.Image) {
	conn, err := c.cluster.Connect()
	if err != nil {
		return
	}
	watchers, err := image.ListWatchers()
	if err != nil {
		return
	}
	for _, w := range watchers {
		if uint64(w.Id) != conn.GetInstanceID() {
			fmt.Fprintf(c.stderr, "hint: client.%d at %s has the image open and may still use what it was before: unmount or close it there before it writes\n", w.Id, w.Addr)
		}
	}
}

// snapHints names the snapshots that keep an image from being removed, and
// whether clones or protection keep them in turn.
func snapHints(_ *call, s spec.Spec, image *rbd.Image) []string {
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == rbd.SnapNamespaceTypeUser })
	if err != nil {
		return nil
	}
	purge := fmt.Sprintf("\"rbd snap purge %s\" removes its snapshots: %s", s, strings.Join(snapTitles(snaps), ", "))
	var lines []string
	for _, snap := range snaps {
		if protected, err := image.GetSnapshot(snap.Name).IsProtected(); err == nil && protected {
			s.Snap = snap.Name
			lines = append(lines, fmt.Sprintf("snapshot %s is protected: \"rbd snap unprotect %s\" comes first", snap.Name, s))
		}
	}
	if _, children, err := image.ListChildren(); err == nil && len(children) > 0 {
		lines = append(lines, "clones of it: "+strings.Join(children, ", "))
	}
	return append(lines, purge)
}

func snapTitles(snaps []rbd.SnapInfo) (names []string) {
	for _, s := range snaps {
		names = append(names, s.Name)
	}
	return names
}

// snapNames names the snapshots that an image has.
func snapNames(_ *call, _ spec.Spec, image *rbd.Image) []string {
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == rbd.SnapNamespaceTypeUser })
	return enumerated("snapshots of the image", snapTitles(snaps), err)
}

// protectedHints says how a snapshot can be removed that is protected.
func protectedHints(c *call, s spec.Spec, image *rbd.Image) []string {
	protected, err := image.GetSnapshot(s.Snap).IsProtected()
	if err != nil || !protected {
		return nil
	}
	return append([]string{fmt.Sprintf("\"rbd snap unprotect %s\" comes first", s)}, childrenHints(c, s, image)...)
}

// childrenHints names the clones that keep a snapshot protected.
func childrenHints(c *call, s spec.Spec, image *rbd.Image) []string {
	if err := image.SetSnapshot(s.Snap); err != nil {
		return nil
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return nil
	}
	children, err := c.listChildren(pool, image, s.Snap)
	var names []string
	for _, child := range children {
		name := spec.Spec{Pool: child.PoolName, Namespace: child.PoolNamespace, Image: child.ImageName}.String()
		if child.Trash {
			name += " (in the trash)"
		}
		names = append(names, name)
	}
	if err != nil || len(names) == 0 {
		return nil
	}
	return enumerated("clones of it, to be flattened (\"rbd flatten\") or removed first", names, nil)
}

// unprotectedHints says what a clone by the older format wants.
func unprotectedHints(_ *call, s spec.Spec, image *rbd.Image) []string {
	if s.Snap == "" {
		return nil
	}
	protected, err := image.GetSnapshot(s.Snap).IsProtected()
	if err != nil || protected {
		return nil
	}
	return []string{fmt.Sprintf("the snapshot is not protected: \"rbd snap protect %s\", or clone with --rbd-default-clone-format 2", s)}
}

// featureHints names the features that others need, and which the image lacks.
func featureHints(c *call, _ spec.Spec, image *rbd.Image) []string {
	has, err := image.GetFeatures()
	if err != nil {
		return nil
	}
	asked := strings.Join(c.Args().Slice(), ",")
	var lines []string
	for _, need := range []struct {
		name  string
		needs uint64
		what  string
	}{
		{"object-map", rbd.FeatureExclusiveLock, "exclusive-lock"},
		{"journaling", rbd.FeatureExclusiveLock, "exclusive-lock"},
		{"fast-diff", rbd.FeatureExclusiveLock, "exclusive-lock"},
		{"fast-diff", rbd.FeatureObjectMap, "object-map"},
	} {
		if strings.Contains(asked, need.name) && !strings.Contains(asked, need.what) && has&need.needs == 0 {
			lines = append(lines, fmt.Sprintf("%s needs %s: enable it first, or both at once", need.name, need.what))
		}
	}
	for _, b := range featureBits {
		if has&b.value != 0 && slices.Contains(strings.FieldsFunc(asked, func(r rune) bool { return r == ',' }), b.name) {
			lines = append(lines, b.name+" is enabled already")
		}
	}
	return lines
}

// lockHints names who keeps others from writing.
func lockHints(c *call, s spec.Spec, image *rbd.Image) []string {
	if s.Snap != "" {
		return nil
	}
	var lines []string
	for _, h := range holders(c, image) {
		lines = append(lines, fmt.Sprintf("%s at %s holds the exclusive lock: close or unmap the image there", h.Client, h.Addr))
	}
	return lines
}

// shrinkHints says what a smaller size would cost.
func shrinkHints(c *call, _ spec.Spec, image *rbd.Image) []string {
	wanted, err := c.size()
	if err != nil {
		return nil
	}
	size, err := image.GetSize()
	if err != nil || size <= wanted {
		return nil
	}
	return []string{fmt.Sprintf("the image has %s: what lies beyond %s would be lost, so shrink the file system first", output.Size(size), output.Size(wanted))}
}
