package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

func TestUpStatusDown(t *testing.T) {
	var stdout bytes.Buffer
	l := lab{name: fmt.Sprintf("main-test-%d", os.Getpid()), stdout: &stdout}
	run := func(args ...string) string {
		t.Helper()
		stdout.Reset()
		if err := l.run(t.Context(), args); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return stdout.String()
	}
	t.Cleanup(func() { l.run(t.Context(), []string{"down"}) })

	if err := l.run(t.Context(), []string{"status"}); !errors.Is(err, cluster.ErrNotRunning) {
		t.Errorf("status before up: %v", err)
	}
	told := run("up")
	// What it tells to do works as it stands there.
	lines := regexp.MustCompile(`(?m)^  ((?:export|nsenter).*)$`).FindAllStringSubmatch(told, -1)
	var script strings.Builder
	for _, line := range lines {
		fmt.Fprintln(&script, line[1])
	}
	sh := exec.Command("sh", "-e")
	sh.Stdin = strings.NewReader(script.String())
	out, err := sh.CombinedOutput()
	if len(lines) != 4 || err != nil || !strings.Contains(string(out), "disk  1 GiB") {
		t.Errorf("%d lines of advice: %v: %s\n%s", len(lines), err, out, &script)
	}
	if again := run("up"); !strings.HasPrefix(again, "The lab is already up.") || !strings.HasSuffix(again, told) {
		t.Errorf("up again: %s", again)
	}
	if out := run("sh", "sh", "-c", "hostname; ls /sys/class/net"); out != "node1\neth0\nlo\n" {
		t.Errorf("in the node: %s", out)
	}
	if err := l.run(t.Context(), []string{"sh", "sh", "-c", "exit 7"}); !errors.Is(err, exitCode(7)) {
		t.Errorf("exit 7 in the node: %v", err)
	}
	if status := run("status"); !strings.Contains(status, "osd: 1 osds: 1 up") {
		t.Errorf("status: %s", status)
	}
	run("down")
	if out := run("down"); out != "The lab is not up.\n" {
		t.Errorf("down again: %s", out)
	}
}

func TestUnknownWords(t *testing.T) {
	for _, args := range [][]string{{}, {"start"}, {"up", "--osds"}} {
		if err := (lab{name: "none"}).run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "usage: ") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
