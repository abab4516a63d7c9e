package conformance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What librbd and librados log is not compared, but that it is there, where the
// genuine tool has it, and whole.
func TestLog(t *testing.T) {
	for _, s := range []*side{genuine, ours} {
		s.fresh(t, "create disk --size 1M")
		text, err := os.ReadFile(s.cluster.Conf())
		if err != nil {
			t.Fatal(err)
		}
		for file, more := range map[string]string{
			"quiet.conf": "log to stderr = false\n", "loud.conf": "debug rbd = 20\n",
		} {
			if err := os.WriteFile(filepath.Join(s.dir, file), fmt.Appendf(nil, "%s\n[client]\n%s", text, more), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(line string, logged bool) {
		t.Helper()
		g, o := both(t, func(s *side) (answer, error) { return s.run(s.program, strings.Fields(line), "") })
		if g.code != 0 || o.code != 0 || g.stdout != o.stdout {
			t.Errorf("%s: the genuine tool: %v\nours: %v", line, g, o)
		}
		if g.logged != logged || o.logged != logged {
			t.Errorf("%s: logged: %v by the genuine tool, %v by ours, want %v", line, g.logged, o.logged, logged)
		}
	}
	check("info disk", false)
	check("info disk --debug-rbd 0/20", false)
	check("info disk --debug-rbd 20", true)
	check("ls --debug_ms=1", true)
	check("ls --debug-monc=5", true)
	check("ls --debug-auth 5", true)
	check("info disk --debug-rbd 20 --log-to-stderr=false", false)
	check("info disk --debug-rbd 20 -c quiet.conf", false)
	check("info disk -c quiet.conf", false)
	check("info disk -c loud.conf", true)
	check("info disk -c loud.conf --debug-rbd 0", false)

	for _, command := range []string{
		`{"prefix": "config set", "who": "client", "name": "debug_rbd", "value": "20"}`,
		`{"prefix": "config rm", "who": "client", "name": "debug_rbd"}`,
	} {
		for _, s := range []*side{genuine, ours} {
			if _, err := s.cluster.MonCommand(command); err != nil {
				t.Fatal(err)
			}
		}
		check("info disk", strings.Contains(command, "set"))
	}

	// The thread that writes it is behind when a command ends.
	for range 10 {
		if _, err := ours.run(ours.program, strings.Fields("info disk --debug-rbd 20 --log-file log"), ""); err != nil {
			t.Fatal(err)
		}
		log, err := os.ReadFile(filepath.Join(ours.dir, "log"))
		if last := "librbd::api::Image: get_parent:"; err != nil || !bytes.Contains(log, []byte(last)) {
			t.Fatalf("%v: %q is not in %d bytes of the log", err, last, len(log))
		}
		if err := os.Remove(filepath.Join(ours.dir, "log")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAdminSocket looks whether the socket of the option admin_socket, by which
// a long-lived client can be asked, goes with a short call.
func TestAdminSocket(t *testing.T) {
	for _, s := range []*side{genuine, ours} {
		s.fresh(t, "create disk --size 1M", "snap create disk@s --no-progress")
		for _, line := range []string{"ls", "ls -l", "info disk", "snap ls disk", "info disk --debug-rbd 1", "info none", "--version"} {
			if _, err := s.run(s.program, append(strings.Fields(line), "--admin-socket", s.dir+"/$name.$pid.asok"), ""); err != nil {
				t.Fatal(err)
			}
			if left, err := filepath.Glob(s.dir + "/*.asok"); err != nil || len(left) > 0 {
				t.Errorf("%s, %s: %v stays, %v", s.name, line, left, err)
			}
		}
	}
}
