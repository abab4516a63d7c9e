package conformance

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestWatch: both tools tell the same of what happens to an image, whoever does it.
func TestWatch(t *testing.T) {
	numbers := regexp.MustCompile(`(notify_id|cookie|notifier_id)=\d+`)
	g, o := both(t, func(s *side) (a answer, err error) {
		if err := s.emptyPool(); err != nil {
			return a, err
		}
		run := func(line string) {
			if r := s.cluster.Rbd(strings.Fields(line)...); r.Code != 0 {
				t.Errorf("rbd %s: %s", line, r.Stderr)
			}
		}
		run("create i --size 8M")
		cmd := s.cluster.Command(t.Context(), s.program, "watch", "i")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return a, err
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			return a, err
		}
		deadline := time.Now().Add(30 * time.Second)
		for r := s.cluster.Rbd("status", "i"); strings.Contains(r.Stdout, "none"); r = s.cluster.Rbd("status", "i") {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not watch", s.program)
			}
			time.Sleep(50 * time.Millisecond)
		}
		for _, line := range []string{
			"resize i --size 9M --no-progress", "snap create i@s --no-progress", "image-meta set i k v", "snap rename i@s i@r",
			"bench i --io-type write --io-total 4K", "snap rm i@r --no-progress", "rename i j", "feature disable j object-map fast-diff",
		} {
			run(line)
		}
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s watch: %v", s.program, err)
		}
		a.stdout = numbers.ReplaceAllString(out.String(), "$1=N")
		return a, nil
	})
	if diff := compare(g, o, true); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(o.stdout, "notify_op="); n < 12 {
		t.Errorf("only %d notifications: %s", n, o.stdout)
	}
}
