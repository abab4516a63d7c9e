// Package image tests what is made for those who do not build on the machine that runs it: the programs for arm64, and
// with the build tag image, which takes some ten minutes, the container image (make image-test).
package image

import (
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

const (
	module  = "../../"
	machine = elf.EM_AARCH64
	bin     = module + "bin/arm64/"
	qemu    = "qemu-aarch64-static"
)

// emulated runs a program for arm64. What the emulator would add of this machine, a library for example, is left out.
func emulated(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(qemu); err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends -y qemu-user-static", err)
	}
	cmd := exec.Command(qemu, append([]string{program}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestARM64 starts what make build payload ARCH=arm64 has made.
func TestARM64(t *testing.T) {
	if _, err := os.Stat(bin + "payload/" + payload.ManifestName); err != nil {
		t.Fatalf("%v: run make build payload ARCH=arm64", err)
	}
	dir, err := filepath.Abs(bin + "payload")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(dir + "/usr/lib/opt-rbd/library-path")
	if err != nil {
		t.Fatal(err)
	}
	var libraries []string
	for _, line := range strings.Fields(string(list)) {
		libraries = append(libraries, filepath.Join(dir, line))
	}
	loaded := func(args ...string) (string, error) {
		return emulated(t, dir+"/usr/lib/ld-linux-aarch64.so.1",
			append([]string{"--inhibit-cache", "--library-path", strings.Join(libraries, ":")}, args...)...)
	}

	t.Run("payload", func(t *testing.T) {
		m, err := payload.Read(dir)
		if err != nil || m.Machine != machine.String() {
			t.Fatalf("%+v: %v", m, err)
		}
		if err := payload.Verify(dir); err != nil {
			t.Error(err)
		}
	})

	// The loader itself says whether it finds every library in the payload: this machine has none for it.
	t.Run("closed", func(t *testing.T) {
		checked := 0
		err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "ld-") {
				return err
			}
			f, err := elf.Open(file)
			if err != nil {
				return nil // not a program
			}
			defer f.Close()
			if f.Machine != machine {
				t.Errorf("%s is for %s", file, f.Machine)
			}
			out, err := loaded("--list", file)
			if err != nil {
				t.Errorf("%s: %v: %s", file, err, out)
			}
			for line := range strings.Lines(out) {
				if _, found, ok := strings.Cut(line, "=> "); ok && !strings.HasPrefix(found, dir) {
					t.Errorf("%s loads from outside: %s", file, line)
				}
			}
			checked++
			return nil
		})
		if err != nil || checked < 30 {
			t.Errorf("%d checked: %v", checked, err)
		}
	})

	t.Run("rbd", func(t *testing.T) {
		// The whole line: how a function of C++ hands it over differs from CPU to CPU.
		want, err := exec.Command("rbd", "--version").Output()
		if err != nil {
			t.Fatalf("%v: apt-get install --no-install-recommends -y ceph-common", err)
		}
		if out, err := loaded(dir+"/usr/bin/rbd", "--version"); err != nil || out != string(want) {
			t.Errorf("%v: %q, want %q", err, out, want)
		}
		if out, err := loaded(dir+"/usr/bin/rbd", "help", "ls"); err != nil || !strings.Contains(out, "usage: rbd ls") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("modprobe", func(t *testing.T) {
		if out, err := loaded(dir+"/usr/sbin/modprobe", "--version"); err != nil || !strings.Contains(out, "kmod version") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("installer", func(t *testing.T) {
		if out, err := emulated(t, bin+"installer", "--help"); err != nil || !strings.Contains(out, "uninstall") {
			t.Errorf("%v: %s", err, out)
		}
	})

	// What the launcher answers by itself; what it would start, the emulator leaves to this machine's kernel.
	t.Run("shim", func(t *testing.T) {
		out, err := emulated(t, bin+"shim", "device", "list", "--format", "json")
		if err != nil || !strings.HasPrefix(out, "[") {
			t.Errorf("%v: %q", err, out)
		}
		content, err := os.ReadFile(bin + "shim")
		if err != nil {
			t.Fatal(err)
		}
		alone := t.TempDir() + "/rbd"
		if err := os.WriteFile(alone, content, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err = emulated(t, alone, "--version")
		if err == nil || !strings.Contains(out, "nothing is installed at") {
			t.Errorf("without a payload: %v: %q", err, out)
		}
	})
}
