package node

import (
	"context"
	"errors"
	"fmt"
	"os"
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

func dialManager(ctx context.Context, timeout time.Duration) (*manager, error) {
	// The context of the dial ends the connection with it, so it cannot
	// carry the bound.
	conn, err := within(ctx, callTimeout, func(context.Context) (*dbus.Conn, error) { return dbus.NewWithContext(ctx) })
	if err != nil {
		return nil, fmt.Errorf("cannot reach systemd over D-Bus: %w", err)
	}
	return &manager{conn, timeout}, nil
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
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	result := make(chan string, 1) // buffered: nobody may be there to take it any more
	if _, err := m.conn.RestartUnitContext(ctx, unit, "replace", result); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("restart %s: the job ended as %q: see journalctl -u %s", unit, r, unit)
		}
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("restart %s: not done within %s: see systemctl status %s, or give it longer with --timeout", unit, m.timeout, unit)
		}
		return ctx.Err()
	}
}

// A unit is what systemd knows about a service.
type unit struct {
	name     string
	found    bool
	active   string // ActiveState
	sub      string // SubState
	result   string // Result of the last run
	pid      uint32 // of the main process, 0 when there is none
	started  time.Time
	env      []string // Environment=
	envFiles []string // EnvironmentFile=
}

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
	u.active, _ = all["ActiveState"].(string)
	u.sub, _ = all["SubState"].(string)
	u.result, _ = all["Result"].(string)
	u.pid, _ = all["MainPID"].(uint32)
	u.env, _ = all["Environment"].([]string)
	if usec, _ := all["ExecMainStartTimestamp"].(uint64); usec > 0 {
		u.started = time.UnixMicro(int64(usec))
	}
	files, _ := all["EnvironmentFiles"].([][]any)
	for _, f := range files {
		if name, ok := f[0].(string); ok {
			u.envFiles = append(u.envFiles, name)
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

// nextPath returns the PATH that the unit's next process gets, and what sets
// it: the manager's environment, Environment= and EnvironmentFile= in turn,
// the later beating the earlier (systemd.exec(5)).
func (u unit) nextPath(t *tree, managerEnv []string) (value, by string) {
	value, _ = pathOf(managerEnv)
	if p, set := pathOf(u.env); set {
		value, by = p, "Environment="
	}
	for _, file := range u.envFiles {
		data, err := t.read(file)
		if err != nil {
			continue // EnvironmentFile=- or a pattern: what it says is seen after the restart
		}
		for _, line := range logicalLines(string(data)) {
			for _, word := range splitWords(line) {
				if p, ok := strings.CutPrefix(word, "PATH="); ok {
					value, by = p, "EnvironmentFile="+file
				}
			}
		}
	}
	return value, by
}
