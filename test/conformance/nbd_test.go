package conformance

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The line of rbd-nbd begins as kubelet looks for it, and has no key in it.
// The program is a script that shows how it was called: without the kernel's
// module for nbd the real one does not live long enough to be looked at.
func TestNBDLine(t *testing.T) {
	program := ours.program + "-nbd"
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\"\nfor word; do case $word in --keyfile=*) echo \"key $(cat \"${word#*=}\")\";; esac; done\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(program)
	out, err := ours.cluster.Command(t.Context(), ours.program,
		"map", "-t", "nbd", "rbd/disk", "--id", "kube", "--key=c2VjcmV0", "-o", "io-timeout=3", "-m", "10.0.0.1", "--read-only").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := []string{
		"map", "rbd/disk", "--read-only", "--io-timeout=3", "--id", "kube", "-m", "10.0.0.1",
		"--keyfile=/proc/self/fd/3", "key c2VjcmV0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("rbd-nbd was called with\n%q, want\n%q", got, want)
	}
}
