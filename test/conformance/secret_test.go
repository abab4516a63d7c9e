package conformance

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

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
