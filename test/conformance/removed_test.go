package conformance

import (
	"bufio"
	"strings"
	"testing"
)

// An image whose removal was cut off is in lists until it is gone, or nobody
// would remove it again. It does not keep others out of them.
func TestHalfRemoved(t *testing.T) {
	for _, s := range []*side{genuine, ours} {
		// Many objects, so that the removal lasts.
		s.fresh(t, "create a --size 1M", "create x --size 16M --object-size 4K", "create z --size 1M", "bench --io-type write --io-total 8M x")
		cmd := s.cluster.Command(t.Context(), genuine.program, "rm", "x", "--rbd-concurrent-management-ops=1")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		progress := bufio.NewReader(stderr)
		for text := ""; !strings.Contains(text, " 2%"); {
			if text, err = progress.ReadString('\r'); err != nil {
				t.Fatalf("it was removed before it could be stopped: %v", err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	for _, c := range []struct {
		line string
		code int
		says string
	}{
		{"ls", 0, "x\n"},
		{"ls --format json", 0, `"x"`},
		{"ls -l", 2, "z "},
		{"ls -l --format json", 2, `"z"`},
		{"trash ls --all", 0, ""},
		{"du", 2, "z "},
		{"info x", 2, ""},
	} {
		g, o := both(t, func(s *side) (answer, error) { return s.run(s.program, strings.Fields(c.line), "") })
		if o.code != c.code || !strings.Contains(o.stdout, c.says) {
			t.Errorf("%s: %v", c.line, o)
		}
		if diff := compare(g, o, false); diff != "" {
			t.Errorf("%s:\n%s", c.line, diff)
		}
	}
}
