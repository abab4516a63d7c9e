package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"
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
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		if line != "" {
			line = ": " + line
		}
		return state{word: "changed", why: fmt.Sprintf("%v%s", err, line), todo: "run " + s.name()}, nil
	}
	return proof(line), nil
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

// pathStep is the folder in the PATH that systemd gives to services.
type pathStep struct {
	after setting // what beats our file
}

func (pathStep) name() string { return "PATH of systemd's services" }

func (s pathStep) check(ctx context.Context, n *Node) (state, error) {
	env, err := n.systemd.environment(ctx)
	if err != nil {
		return state{}, err
	}
	value, _ := pathOf(env)
	if inPath(value, n.bin()) {
		return good(value), nil
	}
	return state{word: "changed", why: fmt.Sprintf("%s, without %s", value, n.bin()), todo: "reload systemd (daemon-reload)"}, nil
}

func (s pathStep) apply(ctx context.Context, n *Node) (string, error) {
	if err := n.systemd.reload(ctx); err != nil {
		return "", err
	}
	st, err := s.check(ctx, n)
	if err != nil || st.ok {
		return "systemd reloaded, its services get PATH=" + st.why, err
	}
	if s.after.file != "" && !inPath(s.after.path, n.bin()) {
		return "", fmt.Errorf("%s sets PATH after %s and beats it: add :%s there", s.after.file, path.Base(managerFile), n.bin())
	}
	return "", fmt.Errorf("systemd keeps PATH=%s: was it set by systemctl set-environment? then run systemctl unset-environment PATH", strings.TrimSuffix(st.why, ", without "+n.bin()))
}

func (pathStep) undo(ctx context.Context, n *Node) (string, error) {
	return "systemd reloaded", n.systemd.reload(ctx)
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
	env, err := n.systemd.environment(ctx)
	if err != nil {
		return state{}, err
	}
	next, by := u.nextPath(n.tree, env)
	value, seen := u.processPath()
	if !seen {
		value = next
	}
	if inPath(value, n.bin()) {
		found, err := findIn(n.tree, value, "rbd")
		if err != nil {
			return state{word: "missing", why: fmt.Sprintf("%s: %v", u.name, err), todo: "prove that " + u.name + " finds rbd"}, nil
		}
		if u.pid == 0 {
			return proof(fmt.Sprintf("%s is %s, will find %s", u.name, u.active, found)), nil
		}
		return proof(fmt.Sprintf("%s, pid %d, finds %s", u.name, u.pid, found)), nil
	}
	if u.pid == 0 && by == "" {
		return proof(fmt.Sprintf("%s is %s, gets the PATH of systemd's services when it starts", u.name, u.active)), nil
	}
	st := state{word: "changed", why: fmt.Sprintf("%s, pid %d, has PATH=%s, without %s", u.name, u.pid, value, n.bin()), todo: "restart " + u.name}
	if by != "" && !inPath(next, n.bin()) {
		st.why = fmt.Sprintf("%s sets its own PATH=%s by %s, which beats that of systemd", u.name, next, by)
		st.todo = fmt.Sprintf("none: add :%s to the PATH of %s, then restart it", n.bin(), u.name)
	}
	return st, nil
}

func (s kubeletStep) apply(ctx context.Context, n *Node) (string, error) {
	u, err := n.systemd.unit(ctx, n.Unit)
	if err != nil {
		return "", err
	}
	env, err := n.systemd.environment(ctx)
	if err != nil {
		return "", err
	}
	// A restart that cannot help only costs the node its readiness.
	next, by := u.nextPath(n.tree, env)
	if !inPath(next, n.bin()) {
		return "", fmt.Errorf("%s sets its own PATH=%s by %s, which beats that of systemd: add :%s there (systemctl edit %s), then restart it", u.name, next, by, n.bin(), u.name)
	}
	if u.pid == 0 {
		return "", fmt.Errorf("%s is %s and finds no rbd", u.name, u.active)
	}
	vain := fmt.Errorf("%s was restarted and still has no %s in its PATH: its program sets its own, add :%s there", u.name, n.bin(), n.bin())
	if n.record != nil && n.record.Deaf == u.started.UnixMicro() {
		return "", vain
	}
	if err := n.systemd.restart(ctx, u.name); err != nil {
		return "", err
	}
	now, err := n.systemd.settle(ctx, u.name)
	if err != nil {
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
