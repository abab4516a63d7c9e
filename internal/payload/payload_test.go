package payload

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const genuineRBD = "/usr/bin/rbd"

func build(t *testing.T, o Options) *Manifest {
	t.Helper()
	for _, file := range []string{genuineRBD, "/sbin/modprobe"} {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("%v: apt-get install --no-install-recommends -y ceph-common kmod", err)
		}
	}
	m, err := Build(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	m := build(t, Options{Root: "/", Programs: []string{genuineRBD}, Dir: dir + "/one"})
	if m.Ceph == "" || m.ID == "" {
		t.Errorf("no version or id: %+v", m)
	}
	const limit = 45e6
	if m.Size > limit {
		t.Errorf("%d bytes are more than %d", m.Size, int(limit))
	}
	if err := Verify(dir + "/one"); err != nil {
		t.Error(err)
	}
	read, err := Read(dir + "/one")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, read); diff != "" {
		t.Errorf("built (-) and read (+):\n%s", diff)
	}
	for _, want := range []string{"usr/bin/rbd", "usr/sbin/modprobe", "usr/lib/modules", "usr/share/zoneinfo"} {
		if !slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == want }) {
			t.Errorf("no %s", want)
		}
	}

	// In the place of an older one, with other rights for new files: the same bytes.
	build(t, Options{Root: "/", Programs: []string{"/bin/true"}, Dir: dir + "/two"})
	again := build(t, Options{Root: "/", Programs: []string{genuineRBD}, Dir: dir + "/two"})
	if diff := cmp.Diff(m, again); diff != "" {
		t.Errorf("built twice:\n%s", diff)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("something is left: %v %v", left, err)
	}
}

// TestClosed asks each program's own loader whether the payload has every library.
func TestClosed(t *testing.T) {
	dir := t.TempDir() + "/payload"
	build(t, Options{Root: "/", Programs: []string{genuineRBD}, Dir: dir})
	b, err := os.ReadFile(dir + "/usr/lib/opt-rbd/library-path")
	if err != nil {
		t.Fatal(err)
	}
	var libraries []string
	for _, line := range strings.Fields(string(b)) {
		libraries = append(libraries, filepath.Join(dir, line))
	}
	loaders, err := filepath.Glob(dir + "/usr/lib64/ld-*")
	if err != nil || len(loaders) != 1 {
		t.Fatalf("%v %v", loaders, err)
	}
	checked := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "ld-") {
			return err
		}
		f, err := elf.Open(path)
		if err != nil {
			return nil // not a program
		}
		f.Close()
		out, err := exec.Command(loaders[0], "--inhibit-cache", "--library-path", strings.Join(libraries, ":"), "--list", path).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", path, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if _, found, ok := strings.Cut(line, "=> "); ok && !strings.HasPrefix(found, dir) {
				t.Errorf("%s loads from outside: %s", path, line)
			}
		}
		checked++
		return nil
	})
	if err != nil || checked < 30 {
		t.Errorf("%d checked: %v", checked, err)
	}
}

// TestRoot makes a payload from a root that is not the running system: one that has nothing but what a payload needs.
func TestRoot(t *testing.T) {
	dir := t.TempDir()
	want := build(t, Options{Root: "/", Programs: []string{genuineRBD}, Dir: dir + "/from"})
	libc, err := filepath.Glob(dir + "/from/usr/lib/*/libc.so.6")
	if err != nil || len(libc) != 1 {
		t.Fatalf("%v %v", libc, err)
	}
	arch := filepath.Base(filepath.Dir(libc[0]))
	for name, layout := range map[string]string{
		// Links that start with a slash mean the root.
		"merged": "ln -s /usr/lib lib; ln -s usr/lib64 lib64; ln -s /usr/sbin sbin",
		// The C library's files are not below /usr.
		"unmerged": "mkdir -p lib/$0 lib64; mv usr/sbin .; mv usr/lib/$0/libc.so.* usr/lib/$0/libm.* usr/lib/$0/ld-* lib/$0; ln -s /lib/$0/$(cd lib/$0; echo ld-*) lib64; rm -r usr/lib64",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.CopyFS(root, os.DirFS(dir+"/from")); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/bin/sh", "-euc", layout, arch)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for name, text := range map[string]string{
				"ld.so.conf":             "# a comment\ninclude ld.so.conf.d/*.conf\n",
				"ld.so.conf.d/arch.conf": "/lib/" + arch + " # here\n\n/usr/lib/" + arch + "\n",
				"ld.so.conf.d/no.txt":    "/nowhere\n",
			} {
				file := filepath.Join(root, "etc", name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got := build(t, Options{Root: root, Programs: []string{root + "/usr/bin/rbd"}, Dir: dir + "/" + name})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from / (-) and from %s (+):\n%s", root, diff)
			}

			// A library that is missing there is not taken from the running system.
			if err := os.Remove(filepath.Join(root, "usr/lib", arch, "libudev.so.1")); err != nil {
				t.Fatal(err)
			}
			_, err := Build(Options{Root: root, Programs: []string{root + "/usr/bin/rbd"}, Dir: dir + "/" + name})
			if err == nil || !strings.Contains(err.Error(), "no library libudev.so.1") {
				t.Errorf("without a library: %v", err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir() + "/payload"
	build(t, Options{Root: "/", Programs: []string{"/bin/true"}, Dir: dir})
	program := dir + "/usr/bin/true"
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() error {
		return all(os.WriteFile(program, content, 0o755), os.Chmod(program, 0o755))
	}
	manifest, err := os.ReadFile(dir + "/" + ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name         string
		change, back func() error
		want         string
	}{
		{"changed byte", func() error {
			return os.WriteFile(program, append(content[:len(content)-1:len(content)-1], ^content[len(content)-1]), 0o755)
		},
			restore, "usr/bin/true is not what the payload was made with"},
		{"changed mode", func() error { return os.Chmod(program, 0o644) }, restore, "usr/bin/true has mode -rw-r--r-- and not -rwxr-xr-x: unpack the payload again"},
		{"missing", func() error { return os.Remove(program) }, restore, "usr/bin/true is missing"},
		{"link instead", func() error { return all(os.Remove(program), os.Symlink("/bin/true", program)) },
			func() error { return all(os.Remove(program), restore()) }, "usr/bin/true is not what"},
		{"new file", func() error { return os.WriteFile(dir+"/usr/zzz", nil, 0o644) }, func() error { return os.Remove(dir + "/usr/zzz") }, "usr/zzz does not belong"},
		{"new folder", func() error { return os.Mkdir(dir+"/usr/aaa", 0o755) }, func() error { return os.Remove(dir + "/usr/aaa") }, "usr/aaa does not belong"},
		{"another digest", func() error {
			return os.WriteFile(dir+"/"+ManifestName, bytes.Replace(manifest, []byte(`"sha256": "`), []byte(`"sha256": "x`), 1), 0o644)
		}, func() error { return os.WriteFile(dir+"/"+ManifestName, manifest, 0o644) }, "the id does not belong to the digest"},
		{"no manifest", func() error { return os.Remove(dir + "/" + ManifestName) },
			func() error { return os.WriteFile(dir+"/"+ManifestName, manifest, 0o644) }, "is not a payload"},
		{"cut manifest", func() error { return os.WriteFile(dir+"/"+ManifestName, manifest[:100], 0o644) },
			func() error { return os.WriteFile(dir+"/"+ManifestName, manifest, 0o644) }, "unexpected end"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.change(); err != nil {
				t.Fatal(err)
			}
			if err := Verify(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if err := test.back(); err != nil {
				t.Fatal(err)
			}
			if err := Verify(dir); err != nil {
				t.Fatalf("after putting it right: %v", err)
			}
		})
	}
}

// all joins what steps of a change say.
func all(errs ...error) error { return errors.Join(errs...) }

// TestRefusals: a payload that cannot work is not made, and leaves what stood there.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	build(t, Options{Root: "/", Programs: []string{"/bin/true"}, Dir: dir + "/payload"})
	text := dir + "/text"
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		programs []string
		want     string
	}{
		{nil, "needs a program"},
		{[]string{dir + "/nosuch"}, "no such file or directory"},
		{[]string{text}, "text is not an ELF program"},
		{[]string{"/bin/false"}, "does not run"},
	} {
		_, err := Build(Options{Root: "/", Programs: test.programs, Dir: dir + "/payload"})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %s", test.programs, err, test.want)
		}
	}
	if err := Verify(dir + "/payload"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("something is left: %v %v", left, err)
	}
}

// TestStripped: debugging information, most of an unstripped program, does not reach a node.
func TestStripped(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("gcc", "-g", "-O0", "-o", dir+"/prog", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("int main(void) { return 0; }")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	build(t, Options{Root: "/", Programs: []string{dir + "/prog"}, Dir: dir + "/payload"})
	f, err := elf.Open(dir + "/payload/usr/bin/prog")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Section(".debug_info") != nil || f.Section(".text") == nil {
		t.Error(fmt.Sprint("sections: ", f.Sections))
	}
}

// TestPlugins: compressors are 1 MB that only a release which compresses messages has a use for.
func TestPlugins(t *testing.T) {
	for option, want := range map[string]bool{"ms_osd_compress_mode": true, "another": false} {
		dir := t.TempDir()
		cmd := exec.Command("gcc", "-o", dir+"/prog", "-x", "c", "-")
		cmd.Stdin = strings.NewReader(`#include <stdio.h>
			int main(void) { puts("` + option + `"); return 0; }`)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v: %s", err, out)
		}
		m := build(t, Options{Root: "/", Programs: []string{dir + "/prog"}, Dir: dir + "/payload"})
		compressor := func(f File) bool { return strings.HasSuffix(f.Path, "/ceph/compressor/libceph_zstd.so") }
		if got := slices.ContainsFunc(m.Files, compressor); got != want {
			t.Errorf("%s: compressors: %v, want %v", option, got, want)
		}
	}
}

// TestPluginWithoutLibrary: a compressor that cannot be loaded in the root either is left out, alone.
func TestPluginWithoutLibrary(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("gcc", "-o", dir+"/prog", "-x", "c", "-")
	cmd.Stdin = strings.NewReader(`#include <stdio.h>
		int main(void) { puts("ms_osd_compress_mode"); return 0; }`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	root := dir + "/root"
	all := build(t, Options{Root: "/", Programs: []string{dir + "/prog"}, Dir: root})
	libraries, err := filepath.Glob(root + "/usr/lib/*/libsnappy.so.1")
	if err != nil || len(libraries) != 1 {
		t.Fatalf("%v %v", libraries, err)
	}
	if err := errors.Join(os.Remove(libraries[0]), os.Symlink("usr/lib64", root+"/lib64"), os.Symlink("usr/sbin", root+"/sbin"),
		os.Mkdir(root+"/etc", 0o755), os.WriteFile(root+"/etc/ld.so.conf", []byte(strings.TrimPrefix(filepath.Dir(libraries[0]), root)+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	got := build(t, Options{Root: root, Programs: []string{dir + "/prog"}, Dir: dir + "/payload"})
	var want, have []string
	for _, f := range all.Files {
		if name := filepath.Base(f.Path); name != "libsnappy.so.1" && name != "libceph_snappy.so" {
			want = append(want, f.Path)
		}
	}
	for _, f := range got.Files {
		have = append(have, f.Path)
	}
	if diff := cmp.Diff(want, have); diff != "" || len(want) == len(all.Files) {
		t.Errorf("without libsnappy, want (-) and have (+):\n%s", diff)
	}
}
