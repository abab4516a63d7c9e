package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testImage = "ceph-common@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestReadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "launcher.conf")
	if c, err := ReadConfig(file); err != nil || c != (Config{}) {
		t.Errorf("without a file: %+v, %v", c, err)
	}
	id := strings.Repeat("0a", 32)
	for text, want := range map[string]Config{
		"":                                     {},
		"# runtime = docker\n\n  runtime=none": {},
		"runtime = nerdctl\nimage = " + testImage + "\n": {Runtime: "nerdctl", Image: testImage},
		"image = sha256:" + id + "\nruntime = docker":    {Runtime: "docker", Image: "sha256:" + id},
		"runtime = podman\r\nimage = " + id + "\r\n":     {Runtime: "podman", Image: id},
		"map = direct":            {Direct: true},
		"\ufeffmap = direct":      {Direct: true},
		"map = direct\nmap = rbd": {},
	} {
		write(t, file, text)
		if c, err := ReadConfig(file); err != nil || c != want {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	for text, want := range map[string]string{
		"\nruntim = docker":                          file + ` line 2: there is no setting "runtim"; known are runtime, image and map`,
		"runtime":                                    file + " line 1: this is not name = value",
		"runtime = lxc":                              file + ` line 1: runtime is none, docker, podman or nerdctl, not "lxc"`,
		"map = fast":                                 file + ` line 1: map is direct or rbd, not "fast"`,
		"runtime = docker":                           file + " has a runtime and no image; set image = NAME@sha256:DIGEST or an image's ID",
		"image = ceph-common:latest":                 file + ` line 1: image is NAME@sha256:DIGEST or an image's whole ID (docker image ls --no-trunc), not "ceph-common:latest"`,
		"image = --privileged@sha256:" + id:          file + ` line 1: image is NAME@sha256:DIGEST or an image's whole ID (docker image ls --no-trunc), not "--privileged@sha256:` + id + `"`,
		"# " + strings.Repeat("x", maxConfig) + "\n": file + " is longer than 64 KiB; is it the right file?",
	} {
		write(t, file, text)
		if _, err := ReadConfig(file); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	write(t, file, "")
	const refused = " is not a file of root's that only root can write; run chown root and chmod 644 on it"
	if err := os.Chmod(file, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadConfig(file); err == nil || err.Error() != file+refused {
		t.Errorf("written by a group: %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 1, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadConfig(file); err == nil || err.Error() != file+refused {
		t.Errorf("owned by another: %v", err)
	}
}

// TestNeeds: which files a line names, and for what.
func TestNeeds(t *testing.T) {
	for _, test := range []struct {
		line        string
		read, write string
		flags       string
	}{
		{line: "ls"},
		{line: "-k ring --conf=a.conf,b.conf ls -p pool", read: "ring a.conf b.conf"},
		{line: "import file image", read: "file"},
		{line: "import --no-progress --size 1 --path file image", read: "file"},
		{line: "--rbd-cache false import - image", flags: "stdin"},
		{line: "import-diff --no-progress -- -file image", read: "-file"},
		{line: "export --export-format 2 pool/image out/file", write: "out/file"},
		{line: "export image -"},
		{line: "export --image image out", write: "out"},
		{line: "export image --path out", write: "out"},
		{line: "merge-diff a b c", read: "a b", write: "c"},
		{line: "merge-diff - b -", read: "b", flags: "stdin"},
		{line: "journal export image out", write: "out"},
		{line: "encryption format image luks2 secret", read: "secret"},
		{line: "migration prepare --import-only --source-spec-path spec image", read: "spec"},
		{line: "mirror pool peer bootstrap import pool token", read: "token"},
		{line: "--id import map image", flags: "kernel"},
		{line: "device map --read-only image", flags: "kernel"},
		{line: "map -t nbd image", flags: "kernel nbd"},
		{line: "map --device-type=nbd image", flags: "kernel nbd"},
		{line: "nbd list", flags: "nbd"},
	} {
		n := readNeeds(strings.Fields(test.line))
		var flags []string
		for name, set := range map[string]bool{"stdin": n.stdin, "kernel": n.kernel, "nbd": n.nbd} {
			if set {
				flags = append(flags, name)
			}
		}
		slices.Sort(flags)
		got := [3]string{strings.Join(append(n.read, n.conf...), " "), strings.Join(n.write, " "), strings.Join(flags, " ")}
		if got != [3]string{test.read, test.write, test.flags} {
			t.Errorf("%s: %q", test.line, got)
		}
	}
}

// TestNerdctl asserts the whole line: nerdctl is not in Debian.
func TestNerdctl(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a,b", "")
	c := Config{Runtime: "nerdctl", Image: testImage}
	argv := []string{"/opt/bin/rbd", "--id", "kube", "export", "image", "-"}
	n := needs{read: []string{"a,b", "gone"}, write: []string{dir + "/x"}}
	got, err := c.command("opt-rbd-1", argv, n, caller{uid: 0, groups: []int{0, 4}, dir: dir, environ: []string{"TZ"}})
	if err != nil {
		t.Fatal(err)
	}
	got = slices.DeleteFunc(got, func(arg string) bool { return strings.Contains(arg, "/etc/ceph") }) // where there is one
	want := []string{
		"nerdctl", "run", "--rm", "--pull=never", "--init", "--name=opt-rbd-1", "--network=host", "--log-driver=none",
		"--cap-drop=ALL", "--security-opt=label=disable", "--security-opt=no-new-privileges", "--user=0:0", "--group-add=4",
		"--cap-add=DAC_OVERRIDE", "--env=TZ", "--workdir=" + dir, "--mount=type=bind,source=" + dir + ",target=" + dir,
		`--mount=type=bind,"source=` + dir + `/a,b","target=` + dir + `/a,b",readonly`,
		"--entrypoint=rbd", testImage, "--id", "kube", "export", "image", "-",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for _, n := range []needs{{read: []string{"/dev/fd/5"}}, {write: []string{"/etc/file"}}} {
		if got, err := c.command("x", argv, n, caller{dir: dir}); err == nil {
			t.Errorf("%+v: %q", n, got)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
