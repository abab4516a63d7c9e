package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCurrent: the page in share/ is what the declarations say.
func TestCurrent(t *testing.T) {
	var out bytes.Buffer
	write(&out)
	have, err := os.ReadFile("../../share/man/man8/rbd.8")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), out.String()); diff != "" {
		t.Errorf("make the page anew (go run -tags pacific ./cmd/manual >share/man/man8/rbd.8):\n%s", diff)
	}
}

// TestRoff: groff has nothing to warn of, and shows what was meant.
func TestRoff(t *testing.T) {
	var page bytes.Buffer
	write(&page)
	cmd := exec.Command("groff", "-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=100n")
	cmd.Stdin = &page
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("groff: %v: %s: apt-get install groff-base", err, warnings.String())
	}
	if warnings.Len() > 0 {
		t.Error(warnings.String())
	}
	for _, want := range []string{"snap create", "--image-feature", "group snap info", "(since Ceph 20)", "--encryption-format arg", "(since Ceph 18)", "rbd [options of Ceph] command", "[pool/[namespace/]]image"} {
		if !strings.Contains(strings.NewReplacer("−", "-", "‐", "-").Replace(string(out)), want) {
			t.Errorf("no %q in the page", want)
		}
	}
}
