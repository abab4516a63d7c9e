package cluster

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// The client is Python's, which comes with ceph-common: so this package needs neither cgo nor a build with the version
// of a librados, and can be imported by any test.
//
//go:embed librados.py
var libradosProgram string

// librados is a client that stays connected, so that a command takes a round trip and not the start of a program.
type librados struct {
	in     io.WriteCloser
	out    *bufio.Reader
	errors string // path of a log
}

func (c *Cluster) startLibrados() (*librados, error) {
	log, err := os.OpenFile(c.path("log/librados"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// -S and -E: none of the site's modules and settings, which would double the time to load.
	cmd := c.Daemon(context.Background(), "/usr/bin/python3", "-S", "-E", "-c", libradosProgram, c.Conf())
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go cmd.Wait() //nolint:errcheck // its end shows in the pipe
	return &librados{in: in, out: bufio.NewReader(out), errors: log.Name()}, nil
}

// ask sends one request and reads the answer.
func (c *Cluster) ask(request map[string]any) ([]byte, error) {
	line, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	c.libradosMu.Lock()
	defer c.libradosMu.Unlock()
	if c.librados == nil {
		if c.librados, err = c.startLibrados(); err != nil {
			return nil, err
		}
	}
	if _, err := c.librados.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("the lab's librados client: %w: %s", err, tail(c.librados.errors))
	}
	line, err = c.librados.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the lab's librados client: %w: %s", err, tail(c.librados.errors))
	}
	var answer struct {
		Code   int
		Out    []byte
		Status string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return nil, err
	}
	if answer.Code != 0 {
		return nil, &MonError{Errno: syscall.Errno(-answer.Code), Status: answer.Status}
	}
	return answer.Out, nil
}

// MonError is the refusal of a command by the monitor. It wraps its error number.
type MonError struct {
	Errno  syscall.Errno
	Status string
}

func (e *MonError) Error() string { return fmt.Sprintf("monitor: %s (%v)", e.Status, e.Errno) }

// Unwrap returns the error number.
func (e *MonError) Unwrap() error { return e.Errno }

// MonCommand sends a command to the monitor as the ceph tool does, {"prefix": "osd dump", "format": "json"} for example,
// and returns its output. A refusal is a MonError.
func (c *Cluster) MonCommand(command string) ([]byte, error) {
	if !json.Valid([]byte(command)) {
		return nil, fmt.Errorf("not JSON: %s", command)
	}
	return c.ask(map[string]any{"command": json.RawMessage(command)})
}

func (c *Cluster) monCommand(command map[string]any) ([]byte, error) {
	text, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	return c.MonCommand(string(text))
}

// makePool makes the pool rbd and waits until it serves, as does the mgr where there is one.
func (c *Cluster) makePool(ctx context.Context) error {
	for _, command := range []map[string]any{
		{"prefix": "osd pool create", "pool": "rbd", "pg_num": 8},
		{"prefix": "osd pool application enable", "pool": "rbd", "app": "rbd"},
	} {
		if _, err := c.monCommand(command); err != nil {
			return fmt.Errorf("%s: %w", command["prefix"], err)
		}
	}
	if _, err := c.ask(map[string]any{"pool": "rbd"}); err != nil {
		return fmt.Errorf("pool rbd: %w", err)
	}
	for c.options.Mgr {
		dump, err := c.monCommand(map[string]any{"prefix": "mgr dump", "format": "json"})
		if err != nil {
			return err
		}
		var mgr struct{ Available bool }
		if err := json.Unmarshal(dump, &mgr); err != nil {
			return err
		}
		if mgr.Available {
			break
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), errors.New("the mgr does not become available"))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
