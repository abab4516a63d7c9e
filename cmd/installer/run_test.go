package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

// folderNode is a folder with a node's files, and one with what is installed:
// a system program stands for launcher and rbd, in which the installer looks
// at the ELF headers alone.
func folderNode(t *testing.T) (root, tools string) {
	t.Helper()
	root, tools = t.TempDir(), t.TempDir()
	for _, dir := range []string{"run", "etc", "opt", "usr/bin", "usr/lib", "usr/lib64"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/usr/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(tools, "payload/usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shim", "payload/usr/bin/rbd"} {
		if err := os.WriteFile(filepath.Join(tools, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	manifest, err := payload.Scan(os.DirFS(filepath.Join(tools, "payload")))
	if err != nil {
		t.Fatal(err)
	}
	manifest.Machine = map[string]string{"amd64": "EM_X86_64", "arm64": "EM_AARCH64"}[runtime.GOARCH]
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tools, "payload", payload.ManifestName), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return root, tools
}

func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "installer")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestRun(t *testing.T) {
	program := build(t)
	root, tools := folderNode(t)
	ready := filepath.Join(t.TempDir(), "state/ready")
	isReady := func() bool { return exec.Command(program, "ready", "--ready-file", ready).Run() == nil }
	if isReady() {
		t.Error("ready before anything runs")
	}

	cmd := exec.Command(program, "run", "--root", root, "--no-restart", "--interval", "1h", "--log-format", "json", "--ready-file", ready,
		"--payload", filepath.Join(tools, "payload"), "--shim", filepath.Join(tools, "shim"))
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s", log.Bytes())
		}
	}()
	eventually(t, "ready", isReady)

	// Long before the interval is over, as a file changes.
	conf := filepath.Join(root, "etc/modules-load.d/rbd.conf")
	want, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	repaired := func() bool { now, err := os.ReadFile(conf); return err == nil && bytes.Equal(now, want) }
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file that is gone is there again", repaired)
	eventually(t, "ready again", isReady)

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err, ended = cmd.Wait(), true
	if err != nil {
		t.Errorf("ended by SIGTERM: %v", err)
	}
	if !repaired() {
		t.Error("SIGTERM took something back")
	}
	if isReady() {
		t.Error("ready after the end")
	}
	for line := range bytes.Lines(log.Bytes()) {
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// TestSecondSignal: an installer that waits for something that never comes is
// ended by the second signal.
func TestSecondSignal(t *testing.T) {
	program := build(t)
	root, tools := folderNode(t)
	manifest := filepath.Join(tools, "payload", payload.ManifestName)
	if err := errors.Join(os.Remove(manifest), syscall.Mkfifo(manifest, 0o600)); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(manifest, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	cmd := exec.Command(program, "plan", "--root", root, "--payload", filepath.Join(tools, "payload"), "--shim", filepath.Join(tools, "shim"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	eventually(t, "it reads the pipe", func() bool {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(fds, func(fd string) bool {
			to, err := os.Readlink(fd)
			return err == nil && to == manifest
		})
	})
	eventually(t, "it ends", func() bool {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		return len(ended) > 0
	})
	<-ended
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("ended by %v", cmd.ProcessState)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{{"--interval", "0s"}, {"--log-format", "xml"}, {"more"}} {
		if err := app().Run(append([]string{"installer", "run"}, args...)); err == nil {
			t.Errorf("run %q: no error", args)
		}
	}
}
