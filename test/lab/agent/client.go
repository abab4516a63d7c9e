package agent

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Command is what to run in the guest. Argv is executed as it is: there is no
// shell. The streams may be nil: an empty input, an output thrown away.
type Command struct {
	Argv   []string
	Dir    string   // "" is /
	Env    []string // added to the agent's own
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Client is the host's side of one session. Its methods may be called by
// several goroutines at once.
type Client struct {
	conn net.Conn

	writing sync.Mutex
	enc     *gob.Encoder

	mu      sync.Mutex
	last    uint64
	running map[uint64]*remote
	err     error // set when the session ends
}

type remote struct {
	stdout, stderr io.Writer
	writeErr       error // of stdout or stderr, read after done
	exit           status
	lost           error // the session ended before the command
	done           chan struct{}
}

// Dial begins a session over the host's end of the port and waits until the
// guest answers or ctx ends. The client owns conn afterwards; on an error it
// is closed.
func Dial(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, running: make(map[uint64]*remote)}
	r := bufio.NewReaderSize(conn, 2*chunkLen)
	if err := c.greet(ctx, r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("no answer from the guest's agent: %w", err)
	}
	c.enc = gob.NewEncoder(conn)
	go c.receive(gob.NewDecoder(r))
	return c, nil
}

func (c *Client) greet(ctx context.Context, r *bufio.Reader) error {
	nonce := []byte(rand.Text())
	greeting := slices.Concat(bytes.Repeat([]byte{filler}, maxMessage), hello(nonce))
	// A guest that still boots reads it later, and the port holds less than all
	// of it. Where writing fails, reading does too.
	go func() { _, _ = c.conn.Write(greeting) }()
	// Only closing the connection ends a read for certain.
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	for {
		got, err := readHello(r)
		if err != nil {
			return cmp.Or(ctx.Err(), err)
		}
		if bytes.Equal(got, nonce) {
			return nil
		}
	}
}

// Close ends the session; the guest kills what still runs.
func (c *Client) Close() error {
	return c.conn.Close()
}

// Run runs a command to its end and returns its exit code, 128+N if signal N
// ended it. An error means that it could not be run, that its output could not
// be written, that the session ended or that ctx did; the command is killed in
// the last case.
func (c *Client) Run(ctx context.Context, cmd Command) (int, error) {
	if len(cmd.Argv) == 0 {
		return -1, errors.New("no command given")
	}
	size := len(cmd.Dir)
	for _, s := range slices.Concat(cmd.Argv, cmd.Env) {
		size += len(s) + 16
	}
	if size > maxMessage/2 {
		return -1, fmt.Errorf("%s: %d bytes of arguments are too many for the agent", cmd.Argv[0], size)
	}
	r := &remote{stdout: cmd.Stdout, stderr: cmd.Stderr, done: make(chan struct{})}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return -1, c.err
	}
	c.last++
	id := c.last
	c.running[id] = r
	c.mu.Unlock()

	if err := c.send(message{ID: id, Start: &start{Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env}}); err != nil {
		return -1, err
	}
	if cmd.Stdin == nil {
		c.trySend(message{ID: id, EOF: true})
	} else {
		go c.feed(id, cmd.Stdin, r.done)
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		c.trySend(message{ID: id, Kill: true})
		select {
		case <-r.done:
		case <-time.After(2 * time.Second): // the guest may be stuck
		}
		return -1, fmt.Errorf("%s: %w", cmd.Argv[0], context.Cause(ctx))
	}
	switch {
	case r.lost != nil:
		return -1, fmt.Errorf("%s: %w", cmd.Argv[0], r.lost)
	case r.exit.Err != "":
		return -1, errors.New(r.exit.Err)
	}
	return r.exit.Code, r.writeErr
}

func (c *Client) send(m message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.enc.Encode(m)
}

// trySend is for what nobody waits for: where it fails, receiving does too.
func (c *Client) trySend(m message) {
	_ = c.send(m)
}

// feed copies standard input until it or the command ends.
func (c *Client) feed(id uint64, stdin io.Reader, done <-chan struct{}) {
	buf := make([]byte, chunkLen)
	for {
		n, err := stdin.Read(buf)
		select {
		case <-done:
			return
		default:
		}
		if n > 0 && c.send(message{ID: id, Stdin: buf[:n]}) != nil {
			return
		}
		if err != nil {
			c.trySend(message{ID: id, EOF: true})
			return
		}
	}
}

func (c *Client) receive(dec *gob.Decoder) {
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			c.end(fmt.Errorf("the connection to the guest ended: %w", err))
			return
		}
		c.mu.Lock()
		r := c.running[m.ID]
		if m.Exit != nil {
			delete(c.running, m.ID)
		}
		c.mu.Unlock()
		if r == nil {
			continue
		}
		r.write(r.stdout, m.Stdout)
		r.write(r.stderr, m.Stderr)
		if m.Exit != nil {
			r.exit = *m.Exit
			close(r.done)
		}
	}
}

func (r *remote) write(w io.Writer, b []byte) {
	if w == nil || len(b) == 0 || r.writeErr != nil {
		return
	}
	_, r.writeErr = w.Write(b)
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, r := range c.running {
		r.lost = err
		close(r.done)
		delete(c.running, id)
	}
}
