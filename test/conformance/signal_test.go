package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal ends a command as it ends the genuine one, and does nothing where it
// was ignored when the command was started.
func TestSignals(t *testing.T) {
	for _, s := range []*side{genuine, ours} {
		s.fresh(t, "create disk --size 1M")
	}
	for _, ignored := range []bool{false, true} {
		for _, name := range []string{"HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "TERM", "PIPE"} {
			if name == "ABRT" && ignored {
				continue // the genuine tool has a handler of its own for that
			}
			t.Run(fmt.Sprintf("%s %v", name, ignored), func(t *testing.T) {
				t.Parallel()
				g, err := genuine.signalled(t, name, ignored)
				if err != nil {
					t.Fatal(err)
				}
				o, err := ours.signalled(t, name, ignored)
				if err != nil {
					t.Fatal(err)
				}
				if g != o {
					t.Errorf("the genuine tool: %s, ours: %s", g, o)
				}
			})
		}
	}
}

// signalled is what a signal makes of a command that waits.
func (s *side) signalled(t *testing.T, name string, ignored bool) (string, error) {
	how := "--default-signal="
	if ignored {
		how = "--ignore-signal="
	}
	cmd := s.cluster.Command(t.Context(), "env", how+name, s.program, "watch", "disk")
	cmd.Cancel = nil
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer cmd.Process.Kill()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.HasPrefix(line, "press enter") {
		return "", fmt.Errorf("%q: %w", line, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if err := cmd.Process.Signal(unix.SignalNum("SIG" + name)); err != nil {
		return "", err
	}
	limit := 20 * time.Second // what the genuine tool writes of an abort takes time
	if ignored {
		limit = time.Second
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return fmt.Sprint("ends: ", err), nil
		}
		return fmt.Sprint("ends: ", exit.Sys().(syscall.WaitStatus).Signal(), " ", exit.ExitCode()), nil
	case <-time.After(limit):
		return "goes on", nil
	}
}

// What goes to a stdout that is closed is not written.
func TestClosedStdout(t *testing.T) {
	ours.fresh(t, "create disk --size 1M", "export-diff disk "+ours.dir+"/diff --no-progress")
	for _, line := range []string{"export disk -", "export disk - --export-format 2", "export-diff disk -", "merge-diff diff diff -"} {
		cmd := ours.cluster.Command(t.Context(), "sh", append([]string{"-c", `exec "$@" >&-`, "sh", ours.program}, strings.Fields(line+" --no-progress")...)...)
		cmd.Dir, cmd.Stderr = ours.dir, os.Stderr
		if err := cmd.Run(); err == nil {
			t.Errorf("%s: no error", line)
		}
	}
}
