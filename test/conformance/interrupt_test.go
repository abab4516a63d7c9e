package conformance

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An import that is ended half-way says what is left of it, and then ends by
// the signal as a program does that does not know it.
func TestInterruptedImport(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	cmd := ours.cluster.Command(t.Context(), ours.program, "import", "-", "half", "--no-progress")
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
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := ours.cluster.Command(t.Context(), genuine.program, "ls").Output()
		if err == nil && strings.Contains(string(out), "half") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no image appears: %s, %v", out, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
	if want := `the image half is not complete: remove it with "rbd rm"`; !strings.Contains(stderr.String(), want) {
		t.Errorf("said %q, not %q", stderr.String(), want)
	}
}
