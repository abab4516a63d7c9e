package agent

import (
	"bufio"
	"encoding/gob"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// afterExit is how long a command's output is still read after its end: what
// it left in the background may hold its pipes open for ever.
const afterExit = 500 * time.Millisecond

// Serve answers sessions on the guest's end of the port, one after the other.
// It returns only when the port fails; that the host is not there is none.
func Serve(port *os.File) error {
	r := bufio.NewReaderSize(port, 2*chunkLen)
	for {
		nonce, err := readHello(r)
		// Everything buffered behind a hello is a newer one: the host sends
		// nothing else before it has its answer.
		for err == nil && r.Buffered() >= len(helloMagic)+nonceLen {
			nonce, err = readHello(r)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			// This is how the driver says that the host is not connected.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		if err := port.SetWriteDeadline(time.Time{}); err != nil {
			return err
		}
		s := &session{running: make(map[uint64]*process), out: port}
		if err := s.echo(nonce); err != nil {
			continue
		}
		s.serve(gob.NewDecoder(r))
		// A write that the full port still holds must not come out in the
		// middle of the next session.
		if err := port.SetWriteDeadline(time.Now()); err != nil {
			return err
		}
		s.end()
	}
}

type session struct {
	writing sync.Mutex
	out     io.Writer
	enc     *gob.Encoder

	mu      sync.Mutex
	running map[uint64]*process
	wait    sync.WaitGroup
}

func (s *session) echo(nonce []byte) error {
	if _, err := s.out.Write(hello(nonce)); err != nil {
		return err
	}
	s.enc = gob.NewEncoder(s.out)
	return nil
}

func (s *session) send(m message) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.enc.Encode(m)
}

// serve takes messages until the host goes away or says something that is no
// message, such as the hello of its next session.
func (s *session) serve(dec *gob.Decoder) {
	for {
		var m message
		if dec.Decode(&m) != nil {
			return
		}
		if m.Start != nil {
			s.start(m.ID, *m.Start)
			continue
		}
		s.mu.Lock()
		p := s.running[m.ID]
		s.mu.Unlock()
		switch {
		case p == nil: // it has just ended
		case m.Kill:
			p.kill()
		case m.EOF:
			p.stdin.close()
		default:
			p.stdin.write(m.Stdin)
		}
	}
}

func (s *session) end() {
	s.mu.Lock()
	for _, p := range s.running {
		p.kill()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

type process struct {
	cmd   *exec.Cmd
	stdin *queue
}

func (p *process) kill() {
	// Setpgid made the child the leader of a group of its own.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	p.stdin.close()
}

func (s *session) start(id uint64, st start) {
	cmd := exec.Command(st.Argv[0], st.Argv[1:]...)
	cmd.Dir = st.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append(os.Environ(), st.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = afterExit
	cmd.Stdout = sender(func(b []byte) error { return s.send(message{ID: id, Stdout: b}) })
	cmd.Stderr = sender(func(b []byte) error { return s.send(message{ID: id, Stderr: b}) })
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.exit(id, status{Err: err.Error()})
		return
	}
	p := &process{cmd: cmd, stdin: newQueue(stdin)}
	s.mu.Lock()
	s.running[id] = p
	s.mu.Unlock()
	s.wait.Go(func() {
		err := cmd.Wait()
		p.stdin.close()
		s.mu.Lock()
		delete(s.running, id)
		s.mu.Unlock()
		var st status
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			st.Code = 128 + int(ws.Signal())
		} else if ok {
			st.Code = ws.ExitStatus()
		} else {
			st.Err = err.Error()
		}
		s.exit(id, st)
	})
}

// exit says how a command ended. A host that has gone asks no more.
func (s *session) exit(id uint64, st status) {
	_ = s.send(message{ID: id, Exit: &st})
}

type sender func([]byte) error

func (f sender) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n := min(len(b)-sent, chunkLen)
		if err := f(b[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(b), nil
}

// queue hands standard input to a command that may not read it, without
// keeping the other commands' messages waiting.
type queue struct {
	mu     sync.Mutex
	more   sync.Cond
	data   [][]byte
	size   int
	closed bool
}

// queueLimit bounds what waits in memory. Past it the whole session waits for
// this command, as it would for a full pipe.
const queueLimit = 16 << 20

func newQueue(w io.WriteCloser) *queue {
	q := &queue{}
	q.more.L = &q.mu
	go func() {
		defer w.Close()
		for {
			q.mu.Lock()
			for len(q.data) == 0 && !q.closed {
				q.more.Wait()
			}
			if len(q.data) == 0 {
				q.mu.Unlock()
				return
			}
			b := q.data[0]
			q.data = q.data[1:]
			q.size -= len(b)
			q.more.Broadcast()
			q.mu.Unlock()
			if _, err := w.Write(b); err != nil {
				q.close() // the command closed its input: what comes is dropped
				q.mu.Lock()
				q.data, q.size = nil, 0
				q.mu.Unlock()
				return
			}
		}
	}()
	return q
}

func (q *queue) write(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size > queueLimit && !q.closed {
		q.more.Wait()
	}
	if !q.closed {
		q.data = append(q.data, b)
		q.size += len(b)
		q.more.Broadcast()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Broadcast()
}
