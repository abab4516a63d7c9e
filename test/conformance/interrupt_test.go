package conformance

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A command that is ended half-way says what is left of it, and then ends by
// the signal as a program does that does not know it.
func TestInterrupted(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"create i --size 64M --object-size 8K", "bench --io-type write --io-size 4M --io-total 64M --io-pattern seq i", "snap create i@s --no-progress",
		"snap protect i@s", "clone i@s child",
	} {
		if r := ours.cluster.Rbd(strings.Fields(line)...); r.Code != 0 {
			t.Fatal(line, ": ", r.Stderr)
		}
	}
	// Each takes a minute.
	const slowly = " --rbd-qos-iops-limit 16 --rbd-concurrent-management-ops 1 --no-progress"
	for _, c := range []struct {
		line, image, want string
		signal            syscall.Signal
	}{
		{"import - half --no-progress", "half", `the image half is not complete: remove it with "rbd rm half"`, syscall.SIGINT},
		{"import - rbd/other --no-progress", "other", `the image rbd/other is not complete: remove it with "rbd rm rbd/other"`, syscall.SIGTERM},
		{"cp i copy" + slowly, "copy", `the image copy is not complete: remove it with "rbd rm copy"`, syscall.SIGINT},
		{"deep cp i deep" + slowly, "deep", `the image deep is not complete: remove it with "rbd rm deep"`, syscall.SIGTERM},
		{"flatten child" + slowly, "", "the clone still has its parent: flatten it again", syscall.SIGINT},
		{"export i -" + slowly, "", "the file is not complete", syscall.SIGINT},
		{"import-diff - i --no-progress", "", "the diff is applied in part: apply it again, or roll back to a snapshot", syscall.SIGINT},
	} {
		t.Run(c.line, func(t *testing.T) {
			cmd := ours.cluster.Command(t.Context(), ours.program, strings.Fields(c.line)...)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// More is not to come, and no end of it either.
			begin := bytes.Repeat([]byte("x"), 5<<20)
			if strings.HasPrefix(c.line, "import-diff") {
				begin = []byte("rbd diff v1\n")
			}
			go func() { _, _ = stdin.Write(begin) }() // others do not read it
			for end := time.Now().Add(20 * time.Second); c.image != "" && ours.cluster.Rbd("info", c.image).Code != 0; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("no image appears: %s", &stderr)
				}
			}
			time.Sleep(time.Second) // it is at work now, whatever it does
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || !status.Signaled() || status.Signal() != c.signal {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
			if want := "\nrbd: interrupted: " + c.want + "\n"; !strings.HasSuffix(stderr.String(), want) {
				t.Errorf("said %q, not %q", stderr.String(), want)
			}
		})
	}
	// It is as it was told.
	if r := ours.cluster.Rbd("info", "child"); !strings.Contains(r.Stdout, "parent: rbd/i@s") {
		t.Errorf("the clone has no parent: %s", r.Stdout)
	}
}

// What a shell starts in the background is not ended by Ctrl-C.
func TestIgnoredInterrupt(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	cmd := ours.cluster.Command(t.Context(), "sh", "-c", `trap "" INT; exec "$0" "$@"`, ours.program, "import", "-", "whole", "--no-progress")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(bytes.Repeat([]byte("x"), 5<<20)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ours.cluster.Rbd("info", "whole").Code != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no image appears: %s", &stderr)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	stdin.Close()
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("ended with %v: %s", err, &stderr)
	}
}
