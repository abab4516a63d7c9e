package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// manager is systemd, PID 1, spoken to over D-Bus: through the system bus,
// or as root by systemd's own socket where no bus runs. Each call has a
// bound.
type manager struct {
	conn    *dbus.Conn
	timeout time.Duration // of a job; questions get callTimeout
}

// callTimeout bounds a question to systemd, which answers in milliseconds
// unless it hangs or reloads a great many units.
const callTimeout = 20 * time.Second

// dialManager speaks to the systemd whose sockets are below root: a node's
// folders in a container, or "/".
func dialManager(ctx context.Context, root string, timeout time.Duration) (*manager, error) {
	// The context of the dial ends the connection with it, so it cannot
	// carry the bound.
	conn, err := within(ctx, callTimeout, func(context.Context) (*dbus.Conn, error) {
		conn, err := dbus.NewConnection(func() (*godbus.Conn, error) { return dial(ctx, filepath.Join(root, busSocket), true) })
		if err == nil || os.Geteuid() != 0 {
			return conn, err
		}
		direct, notThere := dbus.NewConnection(func() (*godbus.Conn, error) { return dial(ctx, filepath.Join(root, systemdSocket), false) })
		if notThere != nil {
			return nil, err // of the bus, which is what one should have
		}
		return direct, nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot reach systemd over D-Bus: %w: --no-restart puts the files in place and leaves the rest to you", err)
	}
	return &manager{conn, timeout}, nil
}

const (
	busSocket     = "/run/dbus/system_bus_socket" // of the D-Bus Specification, "Well-known Message Bus Instances"
	systemdSocket = "/run/systemd/private"        // of systemd itself, for root, without a bus
)

// dial connects to a socket; a bus wants to be greeted, systemd does not.
func dial(ctx context.Context, socket string, bus bool) (*godbus.Conn, error) {
	conn, err := godbus.Dial("unix:path="+godbus.EscapeBusAddressValue(socket), godbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	// By number: a static program cannot look a name up everywhere.
	err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	if err == nil && bus {
		err = conn.Hello()
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (m *manager) close() { m.conn.Close() }

// within runs a call that may not heed its context.
func within[T any](ctx context.Context, d time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	go func() {
		v, err := call(ctx)
		c <- answer{v, err}
	}()
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("no answer from systemd: %w", context.Cause(ctx))
	}
}

// environment is what every service gets that sets nothing itself: the
// manager's own, DefaultEnvironment and systemctl set-environment merged.
func (m *manager) environment(ctx context.Context) ([]string, error) {
	text, err := within(ctx, callTimeout, func(context.Context) (string, error) {
		return m.conn.GetManagerProperty("Environment")
	})
	if err != nil {
		return nil, fmt.Errorf("read systemd's environment: %w", err)
	}
	v, err := godbus.ParseVariant(text, godbus.SignatureOf([]string{}))
	if err != nil {
		return nil, fmt.Errorf("read systemd's environment: %w", err)
	}
	env, _ := v.Value().([]string)
	return env, nil
}

// reload is systemctl daemon-reload. That is enough for DefaultEnvironment:
// services started afterwards get it.
func (m *manager) reload(ctx context.Context) error {
	_, err := within(ctx, m.timeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.conn.ReloadContext(ctx)
	})
	if err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return nil
}

// restart restarts a unit and waits for the job. A job that is done says
// that the unit started, not that it stayed up: see settle.
func (m *manager) restart(ctx context.Context, unit string) error {
	return m.job(ctx, "restart", unit, m.conn.RestartUnitContext)
}

func (m *manager) start(ctx context.Context, unit string) error {
	return m.job(ctx, "start", unit, m.conn.StartUnitContext)
}

func (m *manager) stop(ctx context.Context, unit string) error {
	return m.job(ctx, "stop", unit, m.conn.StopUnitContext)
}

// job has systemd do something to a unit, and waits for it.
func (m *manager) job(ctx context.Context, what, unit string, do func(context.Context, string, string, chan<- string) (int, error)) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	result := make(chan string, 1) // buffered: nobody may be there to take it any more
	if _, err := do(ctx, unit, "replace", result); err != nil {
		return fmt.Errorf("%s %s: %w", what, unit, err)
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("%s %s: the job ended as %q: see journalctl -u %s", what, unit, r, unit)
		}
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("%s %s: not done within %s: see systemctl status %s, or give it longer with --timeout", what, unit, m.timeout, unit)
		}
		return ctx.Err()
	}
}

// run runs a program as a service of its own and returns what it wrote. It
// is the way to ask how something looks to a service: its folders, its
// labels, its environment, whatever container the installer is in.
func (m *manager) run(ctx context.Context, e serviceEnv, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	defer w.Close()
	fd := godbus.MakeVariant(godbus.UnixFD(w.Fd()))
	properties := []dbus.Property{
		dbus.PropType("oneshot"), // its job ends when the program has ended
		dbus.PropExecStart(argv, false),
		dbus.PropDescription("opt-rbd: " + strings.Join(argv, " ")),
		{Name: "StandardOutputFileDescriptor", Value: fd},
		{Name: "StandardErrorFileDescriptor", Value: fd},
		{Name: "TimeoutStartUSec", Value: godbus.MakeVariant(uint64(callTimeout.Microseconds()))},
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")}, // leave no failed unit behind
	}
	if e.path != "" {
		properties = append(properties, dbus.Property{Name: "Environment", Value: godbus.MakeVariant([]string{"PATH=" + e.path})})
	}
	if len(e.files) > 0 {
		properties = append(properties, dbus.Property{Name: "EnvironmentFiles", Value: godbus.MakeVariant(e.files)})
	}
	result := make(chan string, 1)
	name := fmt.Sprintf("opt-rbd-%016x.service", rand.Uint64())
	if _, err := m.conn.StartTransientUnitContext(ctx, name, "fail", properties, result); err != nil {
		return "", fmt.Errorf("run %s as a service: %w", argv[0], err)
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if end, ok := ctx.Deadline(); ok {
		if err := r.SetReadDeadline(end); err != nil {
			return "", err
		}
	}
	out, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return "", fmt.Errorf("run %s as a service: %w", argv[0], err)
	}
	text := strings.TrimSpace(string(out))
	select {
	case how := <-result:
		if how == "done" {
			return text, nil
		}
		if text == "" {
			text = fmt.Sprintf("its job ended as %q", how)
		}
		return "", fmt.Errorf("as a service %s fails: %s", strings.Join(argv, " "), strings.ReplaceAll(text, "\n", "; "))
	case <-ctx.Done():
		return "", fmt.Errorf("run %s as a service: %w", argv[0], context.Cause(ctx))
	}
}

// serviceEnv is what a unit says of PATH for its processes.
type serviceEnv struct {
	path  string    // by Environment=
	files []envFile // by EnvironmentFile=, which beats it
}

// An envFile is an EnvironmentFile= as D-Bus has it.
type envFile struct {
	Path     string // or a pattern
	Optional bool   // - before it
}

// A unit is what systemd knows about a service.
type unit struct {
	name     string
	found    bool
	active   string // ActiveState, which one may have whose file is gone
	sub      string // SubState
	result   string // Result of the last run
	pid      uint32 // of the main process, 0 when there is none
	started  time.Time
	since    time.Duration // of CLOCK_MONOTONIC at that time
	env      serviceEnv
	files    []string   // the unit's own and its drop-ins, in the order in which they are read
	stale    bool       // they changed since systemd read them
	commands [][]string // ExecStart=
}

// own says whether a unit may have another PATH than all services.
func (e serviceEnv) own() bool { return e.path != "" || len(e.files) > 0 }

// dropIn is the installer's file for a unit that needs one; environmentFile is
// a second one that the first names.
func (u unit) dropIn() string {
	return path.Join("/etc/systemd/system", u.name+".d", "zz-opt-rbd.conf")
}

func (u unit) environmentFile() string { return strings.TrimSuffix(u.dropIn(), ".conf") + ".env" }

// container returns the program that runs the unit's command in a container,
// "" where none does.
func (u unit) container() string {
	for _, argv := range u.commands {
		switch program := path.Base(argv[0]); program {
		case "docker", "podman", "nerdctl", "rkt":
			return program
		}
	}
	return ""
}

// server says whether a unit is the API server beside kubelet.
func (u unit) server() bool { return slices.Contains(serverUnits, u.name) }

func (m *manager) unit(ctx context.Context, name string) (unit, error) {
	u := unit{name: name}
	all := map[string]any{}
	for _, kind := range []string{"Unit", "Service"} {
		p, err := within(ctx, callTimeout, func(ctx context.Context) (map[string]any, error) {
			return m.conn.GetUnitTypePropertiesContext(ctx, name, kind)
		})
		if err != nil {
			return u, fmt.Errorf("ask systemd for %s: %w", name, err)
		}
		for k, v := range p {
			all[k] = v
		}
		u.active, _ = all["ActiveState"].(string)
		if load, _ := p["LoadState"].(string); kind == "Unit" {
			if load == "not-found" {
				return u, nil
			}
			if load == "masked" || load == "error" || load == "bad-setting" {
				return u, fmt.Errorf("%s cannot be used: systemd says it is %s: see systemctl status %s", name, load, name)
			}
		}
	}
	u.found = true
	u.sub, _ = all["SubState"].(string)
	u.result, _ = all["Result"].(string)
	u.pid, _ = all["MainPID"].(uint32)
	u.stale, _ = all["NeedDaemonReload"].(bool)
	if usec, _ := all["ExecMainStartTimestamp"].(uint64); usec > 0 {
		u.started = time.UnixMicro(int64(usec))
	}
	usec, _ := all["ExecMainStartTimestampMonotonic"].(uint64)
	u.since = time.Duration(usec) * time.Microsecond
	if fragment, _ := all["FragmentPath"].(string); fragment != "" {
		u.files = append(u.files, fragment)
	}
	dropIns, _ := all["DropInPaths"].([]string)
	u.files = append(u.files, dropIns...)
	env, _ := all["Environment"].([]string)
	u.env.path, _ = pathOf(env)
	envFiles, _ := all["EnvironmentFiles"].([][]any)
	for _, f := range envFiles {
		name, _ := f[0].(string)
		optional, _ := f[1].(bool)
		u.env.files = append(u.env.files, envFile{name, optional})
	}
	commands, _ := all["ExecStart"].([][]any)
	for _, c := range commands {
		if argv, _ := c[1].([]string); len(argv) > 0 {
			u.commands = append(u.commands, argv)
		}
	}
	return u, nil
}

// settleTime is how long a restarted service has to stay up with one process
// to count as up. kubelet that dies of a bad configuration does so within a
// second.
var settleTime = 3 * time.Second

// settle waits until a unit is active and keeps its process for settleTime.
func (m *manager) settle(ctx context.Context, name string) (unit, error) {
	var pid uint32
	var since time.Time
	for end := time.Now().Add(m.timeout); ; {
		u, err := m.unit(ctx, name)
		if err != nil {
			return u, err
		}
		if u.pid != pid || u.active != "active" {
			pid, since = u.pid, time.Now()
		}
		switch {
		case u.active == "active" && time.Since(since) >= settleTime:
			return u, nil
		case u.active == "failed" || time.Now().After(end):
			return u, u.down()
		}
		select {
		case <-ctx.Done():
			return u, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (u unit) down() error {
	return fmt.Errorf("%s does not stay up after its restart: %s (%s), result %s: see journalctl -u %s", u.name, u.active, u.sub, u.result, u.name)
}

// processPath returns the PATH of the unit's running process, the only one
// that counts for what it starts. ok is false where it cannot be seen: no
// process, not root, or another PID namespace.
func (u unit) processPath() (value string, ok bool) {
	if u.pid == 0 {
		return "", false
	}
	// In a container the number may be another process: ask whose it is.
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", u.pid))
	if err != nil || !strings.Contains(string(cgroup), "/"+u.name) {
		return "", false
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", u.pid))
	if err != nil {
		return "", false
	}
	value, _ = pathOf(strings.Split(string(environ), "\x00"))
	return value, true
}

// nextPath returns the PATH that the unit's next process gets: by the
// manager's environment, Environment= and EnvironmentFile= in turn, the later
// beating the earlier (systemd.exec(5)). The files are read by systemd itself
// for a service that tells: they may stand where the installer sees nothing.
func (m *manager) nextPath(ctx context.Context, e serviceEnv) (string, error) {
	if len(e.files) > 0 {
		return m.run(ctx, e, "/usr/bin/printenv", "PATH")
	}
	if e.path != "" {
		return e.path, nil
	}
	env, err := m.environment(ctx)
	if err != nil {
		return "", err
	}
	value, _ := pathOf(env)
	return value, nil
}

// reloaded returns when systemd last read its configuration and its units:
// what started later has what they say. ok is false where systemd does not
// tell.
func (m *manager) reloaded(ctx context.Context) (at time.Duration, ok bool) {
	text, err := within(ctx, callTimeout, func(context.Context) (string, error) {
		return m.conn.GetManagerProperty("UnitsLoadTimestampMonotonic")
	})
	if err != nil {
		return 0, false
	}
	usec, err := strconv.ParseUint(strings.TrimPrefix(text, "@t "), 10, 63)
	return time.Duration(usec) * time.Microsecond, err == nil && usec > 0
}
