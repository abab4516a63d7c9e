package conformance

import (
	"strings"
	"testing"
)

// A migration can lay out the journal of its target. The genuine tool aborts
// where it is asked to, so that it only tells here what ours has made.
func TestMigrationWithJournal(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"create i --size 1M --image-feature exclusive-lock,journaling",
		"migration prepare i --journal-object-size 64K --journal-splay-width 2 --journal-pool rbd",
		"migration execute i --no-progress",
		"migration commit i --no-progress",
	} {
		if a, err := ours.run(ours.program, strings.Fields(line), ""); err != nil || a.code != 0 {
			t.Fatalf("rbd %s: %v, %s", line, err, a)
		}
	}
	a, err := ours.run(genuine.program, strings.Fields("journal info --image i"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"order: 16 (64 KiB objects)", "splay_width: 2", "object_pool: rbd"} {
		if !strings.Contains(a.stdout, want) {
			t.Errorf("the journal has no %q: %s", want, a)
		}
	}
}
