package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// librados logs what it does where it is told to. The key is in no log, however it was given, nor in those of the
// daemons.
func TestKeyIsNotInLogs(t *testing.T) {
	c := ours.cluster
	key, err := c.Secret("client.kube")
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Rbd("create", "logged", "--size", "8M"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	const settings = "--debug-rbd=20 --debug-rados=20 --debug-auth=30 --debug-monc=20 --debug-ms=20 --debug-objecter=20 --debug-asok=20 --debug-context=20"
	logs := strings.Fields(settings + " --log-to-stderr=true --log-file=" + filepath.Join(dir, "log"))
	looked := 0
	for name, give := range map[string]struct{ args, env []string }{
		"line":                {args: append([]string{"--key", key}, logs...)},
		"file":                {args: append([]string{"--keyfile", file}, logs...)},
		"keyring":             {args: append([]string{"--keyring", c.Keyring("client.kube")}, logs...)},
		"environment":         {env: []string{"CEPH_ARGS=--key " + key + " " + strings.Join(logs, " ")}},
		"line, logged by env": {args: []string{"--key=" + key}, env: []string{"CEPH_ARGS=" + strings.Join(logs, " ")}},
	} {
		for _, line := range []string{"ls", "info logged", "status logged", "snap create logged@" + strconv.Itoa(looked) + " --no-progress", "map logged", "mirror pool info", "info none"} {
			log := filepath.Join(dir, "log")
			if err := os.RemoveAll(log); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			cmd := c.Command(ctx, ours.program, append(append(strings.Fields(line), "--id", "kube"), give.args...)...)
			cmd.Env = append(cmd.Env, give.env...)
			out, _ := cmd.CombinedOutput() // some of them fail
			cancel()
			text, err := os.ReadFile(log)
			if err != nil || !bytes.Contains(text, []byte("auth: ")) {
				t.Fatalf("%s, key by %s: nothing was logged: %v: %s", line, name, err, text)
			}
			looked++
			for where, text := range map[string][]byte{"log": text, "output": out} {
				if bytes.Contains(text, []byte(key)) {
					t.Errorf("%s, key by %s: the key is in the %s", line, name, where)
				}
			}
		}
	}
	daemons, err := filepath.Glob(filepath.Join(c.Dir(), "log", "*"))
	if err != nil || len(daemons) < 3 {
		t.Fatalf("logs of daemons: %q, %v", daemons, err)
	}
	for _, log := range daemons {
		if text, err := os.ReadFile(log); err != nil || bytes.Contains(text, []byte(key)) {
			t.Errorf("the key is in the log %s, or: %v", log, err)
		}
	}
}

// A key that its user has in no file does not come into one by a core, nor can
// other processes of the user read it in the memory of this one. The kernel
// gives what tells of such a process to root. With a key that is in a file all
// is as with the genuine tool.
func TestKeyIsNotInCore(t *testing.T) {
	const nobody = 65534
	key, err := ours.cluster.Secret("client.kube")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := errors.Join(os.WriteFile(file, []byte(key), 0o600), os.Chown(file, nobody, nobody),
		os.Chmod(filepath.Dir(ours.program), 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for name, c := range map[string]struct {
		program   string
		args, env []string
		dumpable  bool
	}{
		"on the line":         {program: ours.program, args: []string{"--key", key}},
		"in the environment":  {program: ours.program, env: []string{"CEPH_ARGS=--key=" + key}},
		"from the launcher":   {program: ours.program, args: []string{"--keyfile=/proc/self/fd/3"}},
		"in a file":           {program: ours.program, args: []string{"--keyfile", file}, dumpable: true},
		"of the genuine tool": {program: genuine.program, args: []string{"--key", key}, dumpable: true},
	} {
		// It waits for a monitor, and may leave a core.
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `ulimit -c unlimited && exec "$0" "$@"`, c.program,
			"ls", "-c", "/dev/null", "-m", "127.0.0.1:1", "--id", "kube"}, c.args...)...)
		cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, c.env, []*os.File{opened}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		thread := 0
		for end := time.Now().Add(20 * time.Second); thread == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if comm, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(comm), "msgr-worker") {
					thread, _ = strconv.Atoi(filepath.Base(filepath.Dir(name)))
				}
			}
		}
		info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid))
		// As if librados had aborted.
		if err := errors.Join(err, unix.Tgkill(pid, thread, syscall.SIGABRT)); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("key %s: %v", name, err)
		}
		_ = cmd.Wait() // of the signal
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		owner := info.Sys().(*syscall.Stat_t).Uid
		t.Logf("key %s: owner %d, wait status %#x", name, owner, uint32(status))
		if got := owner == nobody; got != c.dumpable || !status.Signaled() || status.CoreDump() && !c.dumpable {
			t.Errorf("key %s: its memory belongs to user %d, wait status %#x", name, owner, uint32(status))
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
