package conformance

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testPerf compares what is said of an image that is read and written all the time. The manager needs some seconds to
// have numbers, which both tools wait for; they are never the same.
func testPerf(t *testing.T) {
	number := regexp.MustCompile(`[0-9][0-9.e+]*( ?[kKMGT]i?B?| B| ns| us| ms| s)?(/s)?`)
	// A column is as wide as its widest number: how many spaces are between columns says nothing, one or more does.
	spaces := regexp.MustCompile(` {2,}`)
	g, o := both(t, func(s *side) (all answer, err error) {
		if err := s.emptyPool(); err != nil {
			return all, err
		}
		if r := s.cluster.Rbd("create", "busy", "--size", "64M"); r.Code != 0 {
			t.Error(r.Stderr)
		}
		load := s.cluster.Command(t.Context(), genuine.program, "bench", "busy", "--io-type", "rw", "--io-total", "100G", "--io-threads", "1")
		if err := load.Start(); err != nil {
			return all, err
		}
		defer func() {
			_ = load.Process.Kill()
			_ = load.Wait()
		}()
		for _, line := range []string{
			"perf image iostat --iterations 1",
			"perf image iostat rbd --iterations 1 --sort-by read-latency",
			"perf image iostat --pool rbd --format json",
			"perf image iostat --format json --pretty-format --sort-by write-bytes",
			"perf image iostat rbd --format xml",
		} {
			a, err := s.run(s.program, strings.Fields(line), "")
			if err != nil {
				return all, err
			}
			if a.code != 0 {
				t.Errorf("%s %s: %d, %s", s.program, line, a.code, a.stderr)
			}
			if !strings.Contains(a.stdout, "busy") {
				t.Errorf("%s %s: no numbers: %s", s.program, line, a.stdout)
			}
			all.stdout += spaces.ReplaceAllString(number.ReplaceAllString(a.stdout, "N"), "  ")
		}
		stopTop(t, s)
		if s.program == genuine.program {
			return all, nil
		}
		top := s.cluster.Command(t.Context(), s.program, "perf", "image", "iotop", "rbd")
		top.Env = append(top.Environ(), "TERM=xterm")
		keys, err := top.StdinPipe()
		if err != nil {
			return all, err
		}
		var screen strings.Builder
		top.Stdout = &screen
		if err := top.Start(); err != nil {
			return all, err
		}
		for _, key := range []string{">", ">", "<", "q"} {
			time.Sleep(200 * time.Millisecond)
			if _, err := keys.Write([]byte(key)); err != nil {
				return all, err
			}
		}
		if err := top.Wait(); err != nil {
			t.Errorf("iotop: %v", err)
		}
		for _, want := range []string{">WRITES OPS", ">READS OPS", ">WRITE BYTES", "us bu", oldScreen} {
			if !strings.Contains(screen.String(), want) {
				t.Errorf("iotop does not show %q: %q", want, screen.String())
			}
		}
		return all, nil
	})
	if diff := compare(g, o, true); diff != "" {
		t.Error(diff)
	}
}

// stopTop looks how iotop ends: not with its input, but by a signal.
func stopTop(t *testing.T, s *side) {
	t.Helper()
	top := s.cluster.Command(t.Context(), s.program, "perf", "image", "iotop", "rbd")
	top.Env = append(top.Environ(), "TERM=xterm")
	var stderr strings.Builder
	top.Stderr = &stderr
	if err := top.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	if err := top.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("%s: iotop has ended with its input: %v", s.program, err)
	}
	if _ = top.Wait(); top.ProcessState.ExitCode() != 1 || stderr.String() != "" {
		t.Errorf("%s: iotop ends by SIGTERM with %v, and says %q", s.program, top.ProcessState, stderr.String())
	}
}

// oldScreen is how a terminal gets back what it showed before.
const oldScreen = "\x1b[?1049l"
