// Package node_test runs the project's story as a test: one real cluster, one
// real node, a real kubelet, from the pod that cannot start to everything taken
// back.
package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/test/story"
)

// A payload is copied to every node and kept there twice.
func TestPayloadSize(t *testing.T) {
	m, err := payload.Read("../../bin/payload")
	if err != nil {
		t.Fatalf("%v: run `make payload`", err)
	}
	if m.Size > 45e6 {
		t.Errorf("the payload has %d bytes, more than 45 MB", m.Size)
	}
}

func TestStory(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"installer", "shim", "payload/payload.json"} {
		if _, err := os.Stat(filepath.Join(bin, part)); err != nil {
			t.Fatalf("no bin/%s: run `make payload`", part)
		}
	}
	s := &story.Story{Bin: bin, Log: os.Stderr}
	defer s.Close()
	for _, step := range story.Steps {
		ok := t.Run(step.Title, func(t *testing.T) {
			s.Say = t.Logf
			if err := step.Run(s, t.Context()); err != nil {
				t.Errorf("%v\nconsole: %s", err, s.Console())
			}
		})
		if !ok {
			break // each step needs the ones before it
		}
	}
}
