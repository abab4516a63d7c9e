package conformance

import (
	"regexp"
	"strings"
	"testing"
)

// Who has an image open, and from where, is what a person needs whose image
// cannot be removed.
func TestWatcherHint(t *testing.T) {
	if r := ours.cluster.Rbd("create", "watched", "--size", "1M"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if err := ours.watch([]string{"watched"}); err != nil {
		t.Fatal(err)
	}
	status := ours.cluster.Rbd("status", "watched")
	watcher := regexp.MustCompile(`watcher=(\S+) (client\.\d+)`).FindStringSubmatch(status.Stdout)
	if watcher == nil {
		t.Fatalf("no watcher: %s", status.Stdout)
	}
	out, err := ours.cluster.Command(t.Context(), ours.program, "rm", "--no-progress", "watched").CombinedOutput()
	ours.endWatches()
	if err == nil {
		t.Fatal("a watched image was removed")
	}
	if want := "hint: " + watcher[2] + " at " + watcher[1] + " has it open"; !strings.Contains(string(out), want) {
		t.Errorf("got %s, want %s", out, want)
	}
}
