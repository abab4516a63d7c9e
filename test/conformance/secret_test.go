package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// runWatched runs a command of ours, whose stdout and stderr are buffers, and
// fails when one of the secrets is in what it prints, or in what everybody can
// read of it and of its children while they run.
func runWatched(cmd *cluster.Cmd, secrets []string) error {
	holds := func(data []byte) bool {
		return slices.ContainsFunc(secrets, func(s string) bool { return bytes.Contains(data, []byte(s)) })
	}
	// A caller that gives the key away on the command line or in the
	// environment has done so by the time that the command can hide it.
	given := holds([]byte(strings.Join(append(slices.Clone(cmd.Args), cmd.Env...), "\x00")))
	if err := cmd.Start(); err != nil {
		return err
	}
	end, seen := make(chan struct{}), make(chan error, 1)
	go func() {
		var found error
		look := func(pid string, mayHold *bool) {
			held := false
			for _, name := range []string{"cmdline", "environ"} {
				file := filepath.Join("/proc", pid, name)
				data, err := os.ReadFile(file)
				switch {
				case err != nil || len(data) == 0: // it has ended
					return
				case holds(data) && *mayHold:
					held = true
				case holds(data):
					found = fmt.Errorf("the key is in %s of %q", file, cmd.Args[:2])
				}
			}
			*mayHold = held
		}
		self, other := given, false
		pid := strconv.Itoa(cmd.Process.Pid)
		for {
			select {
			case <-end:
				seen <- found
				return
			case <-time.After(5 * time.Millisecond):
			}
			look(pid, &self)
			children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
			if err != nil {
				continue
			}
			for _, child := range strings.Fields(string(children)) {
				look(child, &other)
			}
		}
	}()
	err := cmd.Wait()
	close(end)
	leak := <-seen
	for name, out := range map[string]any{"stdout": cmd.Stdout, "stderr": cmd.Stderr} {
		if b, ok := out.(*bytes.Buffer); ok && holds(b.Bytes()) {
			leak = errors.Join(leak, fmt.Errorf("the key is in %s of %q", name, cmd.Args))
		}
	}
	if leak != nil {
		return leak
	}
	return err
}

// A key that a caller puts on the command line cannot be read there while the
// command runs, however long it waits for a monitor.
func TestKeyIsNotInArguments(t *testing.T) {
	key, err := ours.cluster.Secret("client.kube")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ args, env []string }{
		"joined":      {args: []string{"--key=" + key}},
		"apart":       {args: []string{"--key", key}},
		"twice":       {args: []string{"--key", key, "--key=" + key}},
		"environment": {env: []string{"CEPH_ARGS=--key=" + key}},
	} {
		t.Run(name, func(t *testing.T) {
			var silent net.Listener
			err := ours.cluster.Do(func() (err error) {
				silent, err = net.Listen("tcp", "127.0.0.1:0")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			args := append([]string{"ls", "-m", silent.Addr().String(), "--id", "kube"}, c.args...)
			cmd := ours.cluster.Command(t.Context(), ours.program, args...)
			cmd.Env = append(c.env, "CEPH_CONF=/dev/null")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			if err := silent.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			// It has connected, so it has read the key, and is waiting now.
			conn, err := silent.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
			for _, file := range []string{"cmdline", "environ"} {
				data, err := os.ReadFile(filepath.Join(proc, file))
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(data, []byte(key)) {
					t.Errorf("the key is in %s: %q", file, bytes.ReplaceAll(data, []byte(key), []byte("(the key)")))
				}
			}
			// What is not secret stays, as others look for it.
			cmdline, err := os.ReadFile(filepath.Join(proc, "cmdline"))
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
			if len(words) != len(args)+1 {
				t.Errorf("%d words instead of %d: %q", len(words), len(args)+1, words)
			}
			if got := strings.Join(words[1:5], " "); got != strings.Join(args[:4], " ") {
				t.Errorf("the line begins with %q", got)
			}
		})
	}
}

// Neither what goes wrong nor a hint shows the key.
func TestKeyIsNotInErrors(t *testing.T) {
	for _, key := range []string{"c2VjcmV0IHRoYXQgaXMgbm8ga2V5", "c2VjcmV0IHRoYXQgaXMgbm8ga2V", "AQC2PQZrAAAAABAAsecretsecretsecretsecre=="} {
		cmd := ours.cluster.Command(t.Context(), ours.program, "ls", "--id", "kube", "--key", key)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("a key that is none was taken")
		}
		if bytes.Contains(out, []byte(key)) {
			t.Errorf("the key was printed: %s", out)
		}
		if !bytes.Contains(out, []byte("\nhint: ")) {
			t.Errorf("no hint: %s", out)
		}
	}
}

// The watcher of every line finds what it is there for.
func TestRunWatched(t *testing.T) {
	for script, want := range map[string]string{
		"a=se; echo ${a}cret":                               "stdout",
		"a=se; echo ${a}cret >&2":                           "stderr",
		"a=se; env X=${a}cret sleep 0.5; true":              "environ",
		"a=se; sh -c ': '${a}cret'; sleep 0.5; true'; true": "cmdline",
		"a=se; exec sh -c ': '${a}cret'; sleep 0.5; true'":  "cmdline",
		"echo sec; sleep 0.1; true":                         "",
	} {
		cmd := ours.cluster.Command(t.Context(), "sh", "-c", script)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := runWatched(cmd, []string{"secret"})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", script, err, want)
		}
	}
}
