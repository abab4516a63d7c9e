//go:build matrix

package matrix

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/opt-rbd/opt-rbd/test/lab/image"
)

// releases are the suites of Debian by the Ceph that they have.
var releases = map[string]string{"18": "trixie", "20": "sid"}

// files are those of the lines that end soon. Since 18, what a user without
// capabilities asks for takes both tools as long as their time limits; and the
// genuine tool hangs at times in what encryption asks it.
const files = "^(bench_write|cache|completion|copy|create|device|diff|disk_usage|empty|export|feature|group|help|image|import|journal|kubelet|lock|ls|meta|" +
	"migration|migration_import|mirror_peer|mirror_pool|named|namespace|object_map|odd_spec|old_format|pool|snap|snap_change|sparse_size|trash)$"

// shell binds and runs; its words are data.
const shell = `mount --bind "$1/usr" /usr; shift; exec "$@"`

var summary = regexp.MustCompile(`(\d+) lines compared, \d+ differences`)

func TestReleases(t *testing.T) {
	dir := t.TempDir()
	program, test := filepath.Join(dir, "rbd"), filepath.Join(dir, "conformance.test")
	for _, args := range [][]string{
		{"build", "-tags", "pacific", "-o", program, "github.com/opt-rbd/opt-rbd/cmd/rbd"},
		{"test", "-tags", "pacific", "-c", "-o", test, "github.com/opt-rbd/opt-rbd/test/conformance"},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %q: %v: %s", args, err, out)
		}
	}
	for release, suite := range releases {
		t.Run(release, func(t *testing.T) {
			root, err := image.Ceph(t.Context(), suite, os.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			in := func(argv ...string) string {
				cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-ec", shell, "sh", root}, argv...)...)
				cmd.Dir = "../conformance"
				cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Run(); err != nil {
					t.Errorf("%q: %v\n%s", argv, err, out.String())
				}
				return out.String()
			}
			if version := in(program, "--version"); !strings.HasPrefix(version, "ceph version "+release+".") {
				t.Fatalf("with the libraries of %s: %s", suite, version)
			}
			for _, run := range []string{"TestLines/" + files, "TestNewerLines"} {
				out := in(test, "-program", program, "-test.run", run, "-test.v")
				if m := summary.FindStringSubmatch(out); m == nil || m[1] == "0" {
					t.Errorf("nothing was compared:\n%s", out)
				} else {
					t.Log(run, m[0])
				}
			}
			in(test, "-program", program, "-test.run", "^TestLog$")
		})
	}
}
