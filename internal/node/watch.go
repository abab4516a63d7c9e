package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// KeepOptions say how Keep looks after a node.
type KeepOptions struct {
	Interval        time.Duration // longest time between two looks at the node
	RestartJitter   time.Duration // a restart of kubelet comes up to this much later, by chance
	RestartInterval time.Duration // shortest time between two restarts of kubelet
	// Ready is a file that says until when the node counts as in order; empty
	// for none. See CheckReady.
	Ready string
	Log   *slog.Logger
}

// settled is how long the node's files have to be quiet after a change before
// Keep looks at them: whoever changes one may be about to change the next.
var settled = time.Second

// retry is how long Keep waits after a look that failed, the interval at most.
const retry = time.Minute

// Keep installs and stays: it looks at the node again after each interval and
// whenever a file that it put there changes, and repairs what differs. What
// goes wrong is logged and tried again. It returns when the context ends and
// takes nothing back.
func Keep(ctx context.Context, o Options, k KeepOptions) error {
	// A container that starts again finds the file of the one before.
	if err := k.unready(); err != nil {
		return err
	}
	p := pacer{jitter: k.RestartJitter, interval: k.RestartInterval}
	o.MayRestart = p.mayRestart
	for {
		w := k.watch(ctx, o) // before the look, so that nothing happens unseen between the two
		next := k.look(ctx, o)
		if ctx.Err() == nil && next > 0 {
			k.wait(ctx, w, next)
		}
		if w != nil {
			w.Close()
		}
		if ctx.Err() != nil {
			k.Log.Info("ended; what is installed stays")
			return k.unready()
		}
	}
}

// look looks at the node once, repairs what differs, and returns when to look
// again.
func (k KeepOptions) look(ctx context.Context, o Options) time.Duration {
	changed, err := k.repair(ctx, o)
	var later *postponed
	switch {
	case ctx.Err() != nil:
		return 0
	case errors.As(err, &later):
		k.Log.Info("files are in place, kubelet is not restarted yet", "in", time.Until(later.until).Round(time.Second).String(), "because", later.why)
		err = k.unready()
		if err == nil {
			return min(k.Interval, max(time.Until(later.until), time.Second))
		}
	case err == nil && changed:
		return 0 // proven by a second look
	case err == nil:
		err = k.ready(2*k.Interval + o.Timeout)
	default:
		err = errors.Join(err, k.unready())
	}
	if err != nil {
		k.Log.Error(err.Error())
		return min(k.Interval, retry)
	}
	return k.Interval
}

// repair installs where something differs and says whether it changed
// anything.
func (k KeepOptions) repair(ctx context.Context, o Options) (changed bool, err error) {
	o.Say = func(format string, args ...any) { k.Log.Info(fmt.Sprintf(format, args...)) }
	n, err := Open(ctx, o)
	if err != nil {
		return false, err
	}
	defer n.Close()
	if left, err := n.leave(); err != nil || left {
		return false, err
	}
	if n.record != nil && n.record.Complete {
		pending, err := n.Plan(ctx, io.Discard)
		if err != nil {
			return false, err
		}
		if !pending {
			k.Log.Debug("looked at the node: all is in place")
			return false, nil
		}
		k.Log.Warn("the node is not what it should be")
	}
	return true, n.Install(ctx)
}

// watch asks the kernel to tell of changes in the folders of what is
// installed. Where it cannot, the interval has to do.
func (k KeepOptions) watch(ctx context.Context, o Options) *fsnotify.Watcher {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = addFolders(w, o)
	}
	if err != nil && ctx.Err() == nil {
		k.Log.Warn("cannot watch files, changes are seen at the next look only", "error", err.Error())
	}
	return w
}

func addFolders(w *fsnotify.Watcher, o Options) error {
	t, err := openTree(o.Root)
	if err != nil {
		return err
	}
	defer t.root.Close()
	if o.Prefix == "" {
		if o.Prefix, err = choosePrefix(t); err != nil {
			return err
		}
	}
	r, err := readRecord(t, o.Prefix)
	if err != nil || r == nil {
		return err
	}
	add := func(name string) error {
		rel, err := t.resolve(name, true)
		if err != nil {
			return err
		}
		return w.Add(filepath.Join(o.Root, rel))
	}
	seen := map[string]bool{}
	for _, e := range r.Entries {
		dirs := []string{path.Dir(e.Path)}
		if e.Wrote.Kind == payloadFolder {
			inside, err := t.folders(e.Path)
			if err != nil {
				return err
			}
			dirs = append(dirs, inside...)
		}
		for _, dir := range dirs {
			if seen[dir] {
				continue
			}
			seen[dir] = true
			// One that is gone is seen as a difference in the look that follows.
			if err := add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return named(dir, err)
			}
		}
	}
	return nil
}

// folders returns name and the folders below it.
func (t *tree) folders(name string) ([]string, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, named(name, err)
	}
	var dirs []string
	err = fs.WalkDir(t.root.FS(), rel, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, "/"+p)
		}
		return err
	})
	return dirs, named(name, err)
}

// wait returns when it is time for the next look: after d, after a change of
// a file, or when the context ends.
func (k KeepOptions) wait(ctx context.Context, w *fsnotify.Watcher, d time.Duration) {
	var events <-chan fsnotify.Event
	var lost <-chan error
	if w != nil {
		events, lost = w.Events, w.Errors
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	// Names in a folder that nobody stops changing must not put the look off
	// for ever.
	var end time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case e := <-events:
			k.Log.Debug("changed", "file", e.Name, "how", e.Op.String())
		case err := <-lost: // more events than the kernel keeps
			k.Log.Debug("events lost", "error", err)
		}
		if end.IsZero() {
			end = time.Now().Add(10 * settled)
		}
		timer.Reset(min(settled, time.Until(end)))
	}
}

// A pacer puts off restarts of kubelet: those of many nodes are spread, and
// one node's do not follow each other quickly.
type pacer struct {
	jitter, interval time.Duration
	spread           time.Time // chosen when a restart is first asked for
}

// mayRestart returns nil when kubelet may be restarted now; last is when an
// installer restarted it on this node, zero for never.
func (p *pacer) mayRestart(last time.Time) error {
	now := time.Now()
	if p.spread.IsZero() {
		p.spread = now
		if p.jitter > 0 {
			p.spread = now.Add(rand.N(p.jitter))
		}
	}
	later := &postponed{p.spread, "restarts are spread over the nodes"}
	// A time to come was noted when the clock was wrong.
	if next := last.Add(p.interval); !last.After(now) && next.After(later.until) {
		later = &postponed{next, "it was restarted not long ago"}
	}
	if later.until.After(now) {
		return later
	}
	p.spread = time.Time{}
	return nil
}

// mayRestart asks whether kubelet may be restarted now, and notes the restart
// that follows where the next installer finds it.
func (n *Node) mayRestart() error {
	var last time.Time
	if n.record != nil && n.record.Restarted > 0 {
		last = time.UnixMicro(n.record.Restarted)
	}
	if n.MayRestart != nil {
		if err := n.MayRestart(last); err != nil {
			return err
		}
	}
	if n.record == nil {
		return nil
	}
	n.record.Restarted = time.Now().UnixMicro()
	return n.record.save(n.tree)
}

// postponed is why kubelet is not restarted now.
type postponed struct {
	until time.Time
	why   string
}

func (p *postponed) Error() string {
	return fmt.Sprintf("kubelet is to be restarted in %s: %s", time.Until(p.until).Round(time.Second), p.why)
}

// ready says in the file that the node is in order, and for how long that
// counts.
func (k KeepOptions) ready(valid time.Duration) error {
	if k.Ready == "" {
		return nil
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(k.Ready), 0o755); err != nil {
		return err
	}
	fresh := k.Ready + ".new"
	if err := os.WriteFile(fresh, fmt.Appendln(nil, int64((now+valid).Seconds())), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, k.Ready)
}

func (k KeepOptions) unready() error {
	if k.Ready == "" {
		return nil
	}
	if err := os.Remove(k.Ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// CheckReady reads the file that Keep writes and returns nil while the node is
// in order: installed, looked at not long ago, and nothing found wrong since.
func CheckReady(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("not ready: the node is not in order yet, see the log of installer run")
	}
	if err != nil {
		return err
	}
	until, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return fmt.Errorf("%s holds no time: written by something else?", file)
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	if over := now - time.Duration(until)*time.Second; over > 0 {
		return fmt.Errorf("not ready: nobody has looked at the node for longer than agreed, by %s: does installer run still run?", over.Round(time.Second))
	}
	return nil
}

// sinceBoot is a clock that nobody sets and that all containers of a node
// share.
func sinceBoot() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
