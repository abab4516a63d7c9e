package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/systemd"
)

// commandStep proves that the command runs. There is nothing to apply: the
// files before it are what it needs.
type commandStep struct {
	lasting
	path string
}

func (s commandStep) name() string { return s.path + " --version" }

func (s commandStep) check(ctx context.Context, n *Node) (state, error) {
	if _, err := n.tree.stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return state{word: "missing", why: "not there", todo: "run " + s.name()}, nil
	}
	line, err := s.run(ctx, n)
	if err != nil {
		return state{word: "changed", why: err.Error(), todo: "run " + s.name()}, nil
	}
	return proof(line), nil
}

// run runs the command as systemd would, or where nobody speaks to systemd
// directly, and returns the first line that it writes.
func (s commandStep) run(ctx context.Context, n *Node) (string, error) {
	var text string
	var err error
	if n.systemd != nil {
		text, err = n.systemd.run(ctx, serviceEnv{}, s.path, "--version")
	} else {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, s.path, "--version")
		cmd.WaitDelay = time.Second
		var out []byte
		out, err = cmd.CombinedOutput()
		text = strings.TrimSpace(string(out))
		if err != nil && text != "" {
			err = fmt.Errorf("%w: %s", err, strings.ReplaceAll(text, "\n", "; "))
		}
	}
	line, _, _ := strings.Cut(text, "\n")
	return line, err
}

func (s commandStep) apply(ctx context.Context, n *Node) (string, error) {
	st, err := s.check(ctx, n)
	if err == nil && !st.ok {
		err = fmt.Errorf("%s does not run: %s", s.name(), st.why)
	}
	return s.name() + ": " + st.why, err
}

// moduleStep is the rbd module in the running kernel.
type moduleStep struct{ lasting }

const modulesUnit = "systemd-modules-load.service"

func (moduleStep) name() string { return "kernel module rbd" }

func (moduleStep) check(context.Context, *Node) (state, error) {
	// A folder of /sys/bus is there for a module and for a kernel with rbd built in.
	if _, err := os.Stat("/sys/bus/rbd"); err == nil {
		return good("loaded"), nil
	}
	return state{word: "missing", why: "not loaded", todo: "restart " + modulesUnit + ", which loads the module"}, nil
}

func (s moduleStep) apply(ctx context.Context, n *Node) (string, error) {
	// systemd loads it: nothing here needs the right to load modules. The
	// service fails for any module that does not load; ours is what counts.
	failed := n.systemd.restart(ctx, modulesUnit)
	st, err := s.check(ctx, n)
	if err != nil {
		return "", err
	}
	if !st.ok {
		why := errors.New("the kernel has no rbd module loaded: does modprobe rbd work?")
		if failed != nil {
			why = fmt.Errorf("%w; %w", failed, why)
		}
		return "", why
	}
	return s.name() + " loaded by " + modulesUnit, nil
}

// pathStep is the folder in the PATH that systemd gives to services, kubelet
// above all.
type pathStep struct {
	after setting // what beats our file
}

const pathName = "PATH of systemd's services"

func (pathStep) name() string { return pathName }

func (s pathStep) check(ctx context.Context, n *Node) (state, error) {
	u, value, err := n.kubeletPath(ctx)
	if err != nil {
		return state{}, err
	}
	of := ""
	if u.found && u.env.own() {
		of = " for " + u.name
	}
	// systemd may not have noticed yet that a file is gone.
	gone, err := n.gone(u.dropIn(), u.environmentFile())
	if err != nil {
		return state{}, err
	}
	if gone != "" {
		return state{word: "missing", why: gone + " is gone", todo: "write " + gone + ", reload systemd (daemon-reload)"}, nil
	}
	if inPath(value, n.bin()) {
		return good(value + of), nil
	}
	todo := "reload systemd (daemon-reload)"
	if of != "" {
		todo = "write " + u.dropIn() + ", reload systemd (daemon-reload)"
	}
	return state{word: "changed", why: fmt.Sprintf("%s%s, without %s", value, of, n.bin()), todo: todo}, nil
}

// gone returns one of the files that were installed and are not there, "" for
// none.
func (n *Node) gone(names ...string) (string, error) {
	for _, name := range names {
		if n.entry(name) == nil {
			continue
		}
		o, err := n.tree.look(name)
		if err != nil || o.Kind == absent {
			return name, err
		}
	}
	return "", nil
}

// kubeletPath returns the PATH that kubelet's next process gets; that of all
// services where there is no kubelet.
func (n *Node) kubeletPath(ctx context.Context) (unit, string, error) {
	u, err := n.systemd.unit(ctx, n.Unit)
	if err != nil {
		return u, "", err
	}
	value, err := n.systemd.nextPath(ctx, u.env)
	return u, value, err
}

func (s pathStep) apply(ctx context.Context, n *Node) (string, error) {
	if err := n.reload(ctx); err != nil {
		return "", err
	}
	u, value, err := n.kubeletPath(ctx)
	if err != nil || inPath(value, n.bin()) {
		return "systemd reloaded, its services get PATH=" + value, err
	}
	if u.found {
		return s.applyToUnit(ctx, n, u, value)
	}
	if why := s.after.beats(n.bin()); why != "" {
		return "", errors.New(why)
	}
	return "", fmt.Errorf("systemd keeps PATH=%s: was it set by systemctl set-environment? then run systemctl unset-environment PATH", value)
}

// applyToUnit gives a unit that does not get the PATH of all services, or gets
// one that somebody set, the same with our folder.
func (s pathStep) applyToUnit(ctx context.Context, n *Node, u unit, value string) (string, error) {
	value = withFolder(value, n.bin())
	text := systemd.UnitPath(quoted(literal(value)))
	var files []step
	if len(u.env.files) > 0 {
		name := u.environmentFile()
		files = append(files, textFile(name, fmt.Sprintf("PATH=\"%s\"\n", quoted(value))))
		text = systemd.UnitFile(literal(name))
	}
	for _, f := range append(files, textFile(u.dropIn(), text)) {
		if _, err := f.apply(ctx, n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s written, systemd reloaded: %s gets PATH=%s", u.dropIn(), u.name, value), n.reload(ctx)
}

func (pathStep) undo(ctx context.Context, n *Node) (string, error) {
	return "systemd reloaded", n.systemd.reload(ctx)
}

// pathFilesStep is the same where there is no systemd to ask: what the files
// say when they are read at the next boot.
type pathFilesStep struct {
	lasting
	after setting
}

func (pathFilesStep) name() string { return pathName }

func (s pathFilesStep) check(_ context.Context, n *Node) (state, error) {
	// A kubelet that was given a PATH of its own does not care.
	own := n.entry(unit{name: n.Unit}.dropIn()) != nil
	if why := s.after.beats(n.bin()); why != "" && !own {
		return state{word: "changed", why: why, todo: "prove that systemd's services get " + n.bin()}, nil
	}
	return good(""), nil
}

func (s pathFilesStep) apply(_ context.Context, n *Node) (string, error) {
	return "", errors.New(s.after.beats(n.bin()))
}

// kubeletStep is the running kubelet: it must find rbd.
type kubeletStep struct{ lasting }

func (kubeletStep) name() string { return "kubelet" }

func (s kubeletStep) check(ctx context.Context, n *Node) (state, error) {
	u, err := n.systemd.unit(ctx, n.Unit)
	if err != nil {
		return state{}, err
	}
	if !u.found {
		return proof(fmt.Sprintf("no %s on this node, nothing to restart", n.Unit)), nil
	}
	next, err := n.systemd.nextPath(ctx, u.env)
	if err != nil {
		return state{}, err
	}
	value, seen := n.runningPath(ctx, u, next)
	switch {
	case u.pid == 0 && !inPath(next, n.bin()):
		return proof(fmt.Sprintf("%s is %s, gets the PATH of systemd's services when it starts", u.name, u.active)), nil
	case !seen && u.pid != 0:
		return state{word: "changed", why: fmt.Sprintf("%s, pid %d, was started before systemd read the new PATH", u.name, u.pid), todo: "restart " + u.name}, nil
	case !inPath(value, n.bin()):
		return state{word: "changed", why: fmt.Sprintf("%s, pid %d, has PATH=%s, without %s", u.name, u.pid, value, n.bin()), todo: "restart " + u.name}, nil
	}
	found, err := findIn(n.tree, value, "rbd")
	if err != nil {
		return state{word: "missing", why: fmt.Sprintf("%s: %v", u.name, err), todo: "prove that " + u.name + " finds rbd"}, nil
	}
	if u.pid == 0 {
		return proof(fmt.Sprintf("%s is %s, will find %s", u.name, u.active, found)), nil
	}
	if program := u.container(); program != "" {
		return proof(fmt.Sprintf("%s, pid %d, runs kubelet by %s: its container has to see %s, %s, /dev and /sys, which only its own command line can say",
			u.name, u.pid, program, n.bin(), home(n.Prefix))), nil
	}
	return proof(fmt.Sprintf("%s, pid %d, finds %s", u.name, u.pid, found)), nil
}

// runningPath returns the PATH of the unit's process; next where there is
// none. Where the process cannot be looked into, its age tells: it has what
// systemd now gives when it was started after systemd read that. ok is false
// when nothing tells.
func (n *Node) runningPath(ctx context.Context, u unit, next string) (value string, ok bool) {
	if u.pid == 0 {
		return next, true
	}
	if value, ok := u.processPath(); ok {
		return value, true
	}
	if read, ok := n.systemd.reloaded(ctx); ok && u.since > read {
		return next, true
	}
	if n.record == nil || n.record.Reload == nil {
		return "", false
	}
	// Of an earlier boot: this one began with the files in place.
	r := n.record.Reload
	return next, r.Boot != bootID() || u.since > time.Duration(r.At)*time.Microsecond
}

// reload makes systemd read its configuration again, and notes when.
func (n *Node) reload(ctx context.Context) error {
	if err := n.systemd.reload(ctx); err != nil {
		return err
	}
	if n.record == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	n.record.Reload = &moment{bootID(), time.Duration(now.Nano()).Microseconds()}
	return n.record.save(n.tree)
}

func (s kubeletStep) apply(ctx context.Context, n *Node) (string, error) {
	u, err := n.systemd.unit(ctx, n.Unit)
	if err != nil {
		return "", err
	}
	if u.pid == 0 {
		return "", fmt.Errorf("%s is %s and finds no rbd", u.name, u.active)
	}
	vain := fmt.Errorf("%s was restarted and still has no %s in its PATH: its program sets its own, add :%s there", u.name, n.bin(), n.bin())
	if n.record != nil && n.record.Deaf == u.started.UnixMicro() {
		return "", vain
	}
	if u.server() && !n.RestartServer {
		return "", fmt.Errorf("%s is the API server, too: restart it when that is right (systemctl restart %s), or let the installer do it with --restart-server", u.name, u.name)
	}
	if err := n.mayRestart(); err != nil {
		return "", err
	}
	err = n.systemd.restart(ctx, u.name)
	var now unit
	if err == nil {
		now, err = n.systemd.settle(ctx, u.name)
	}
	if err != nil {
		if ctx.Err() == nil {
			err = n.withoutPath(ctx, u, err)
		}
		return "", err
	}
	if value, seen := now.processPath(); seen && !inPath(value, n.bin()) {
		if n.record != nil {
			n.record.Deaf = now.started.UnixMicro()
			err = n.record.save(n.tree)
		}
		return "", cmp.Or(err, vain)
	}
	return fmt.Sprintf("%s restarted, pid %d, was %d", u.name, now.pid, u.pid), nil
}

// withoutPath takes back what a kubelet does not come back with, and starts it
// without. What was wrong before the installation stays wrong, and is told.
func (n *Node) withoutPath(ctx context.Context, u unit, why error) error {
	if n.record == nil {
		return why
	}
	for _, name := range []string{managerFile, u.dropIn(), u.environmentFile()} {
		if n.entry(name) == nil {
			continue
		}
		if _, err := n.record.takeBack(n.tree, name); err != nil {
			return errors.Join(why, err)
		}
	}
	n.record.Complete = false
	if err := errors.Join(n.record.save(n.tree), n.reload(ctx)); err != nil {
		return fmt.Errorf("%w; its PATH is taken back, and then: %w", why, err)
	}
	err := n.systemd.restart(ctx, u.name)
	if err == nil {
		u, err = n.systemd.settle(ctx, u.name)
	}
	if err != nil {
		return fmt.Errorf("%w; nor does it without the new PATH, which is taken back", why)
	}
	return fmt.Errorf("%w; without the new PATH, which is taken back, it runs again, pid %d", why, u.pid)
}

// serviceStep proves that what systemd starts for kubelet finds rbd by its
// name, and that it runs there.
type serviceStep struct{ lasting }

func (serviceStep) name() string { return "rbd --version as a service" }

func (s serviceStep) check(ctx context.Context, n *Node) (state, error) {
	u, err := n.systemd.unit(ctx, n.Unit)
	if err != nil {
		return state{}, err
	}
	line, err := n.systemd.run(ctx, u.env, "/usr/bin/env", "rbd", "--version")
	if err != nil {
		return state{word: "missing", why: err.Error(), todo: "run " + s.name()}, nil
	}
	return proof(line), nil
}

func (s serviceStep) apply(ctx context.Context, n *Node) (string, error) {
	st, err := s.check(ctx, n)
	if err == nil && !st.ok {
		err = errors.New(st.why)
	}
	return s.name() + ": " + st.why, err
}
