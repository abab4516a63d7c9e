package rbdmap

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// script is the genuine one.
const script = "/usr/bin/rbdmap"

// The table is read as the genuine script reads it: its own loop reads, and its
// own function makes the options. What comes after needs mapped devices and is
// in test/extras.
func TestParse(t *testing.T) {
	if _, err := os.Stat(script); err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends -y ceph-common", err)
	}
	const genuine = `
		eval "$(sed -n '/^create_cmd_params()/,/^}/p' /usr/bin/rbdmap)"
		set -f
		rbd() { printf '%s|' "$@"; echo; }
		while read DEV PARAMS; do
			case "$DEV" in ""|\#*) continue;; */*) ;; *) DEV=rbd/$DEV;; esac
			rbd $DEV $(create_cmd_params "${PARAMS}")
		done <"$1"`
	for _, line := range []string{
		"image", "pool/image", "pool/space/image@snap", "", "   ", "# comment", "  #x", "  image  ",
		"image id=admin", "image id=admin,keyring=/etc/ceph/ceph.client.admin.keyring", "image\tid=admin",
		"image id=admin,options='lock_on_read,queue_depth=1024'", "image options='a=b,c=d',id=x", "image read-only",
		"image id=admin # and why", "image id=admin#x", "image options='a#b'", "image 'quoted'", "image id='open",
		"image ,id=x", "image id=x,", "image id=x,,exclusive", "image id=a b,c=d", "image options='a b'", "image =x", "image id==x",
		"image keyring=/tmp/*", "image id=$HOME,keyring=`x`;$(y)", `image id="x"`, "image é=ü",
	} {
		file := filepath.Join(t.TempDir(), "rbdmap")
		if err := os.WriteFile(file, []byte(line+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		want, err := exec.Command("bash", "-c", genuine, "bash", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for i := range parse(line + "\n") {
			got.WriteString(strings.Join(append([]string{i.name}, i.options...), "|") + "|\n")
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%q:\n%s", line, diff)
		}
	}
}

func TestMounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	const text = `22 1 0:20 / / ro shared:1 - erofs /dev/vda ro
70 22 252:0 / /var/lib/a\040b rw,relatime shared:33 - ext4 /dev/rbd0 rw
71 22 252:1 / /var/lib/part rw shared:34 master:2 - xfs /dev/rbd0p1 rw
72 22 0:45 / /var/lib/btrfs rw - btrfs /dev/rbd0 rw
73 22 252:160 / /var/lib/ten rw - ext4 /dev/rbd01 rw
74 22 0:46 / /proc rw - proc /dev/rbd0 rw - x
`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := mounts(file, "/dev/rbd0")
	want := []string{"/var/lib/a b", "/var/lib/part", "/var/lib/btrfs", "/proc"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// What does not end is left behind in time, and what fails is told on one line.
func TestWithin(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"true", ""}, {"echo one; echo two >&2; exit 3", "one; two"}, {"exit 3", "exit status 3"}, {"sleep 20", "no end of it; is the cluster gone?"},
	} {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if c.script == "sleep 20" {
			ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
		}
		got := ""
		if err := within(ctx, exec.Command("sh", "-c", c.script)); err != nil {
			got = err.Error()
		}
		cancel()
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
}

// users finds a process by an open file and by its folder, which is all that
// can be had here without a mapped device.
func TestUses(t *testing.T) {
	// Another file system than that of the programs.
	dir, err := os.MkdirTemp("/dev/shm", "rbdmap")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	number := st.Dev
	for _, start := range []string{"cd \"$1\"; exec sleep 20", "exec sleep 20 <\"$1\""} {
		cmd := exec.Command("sh", "-c", start, "sh", dir)
		cmd.Dir = "/proc"
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		found := false
		for range 100 {
			if found = uses("/proc/"+strconv.Itoa(cmd.Process.Pid), []uint64{number}); found {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !found {
			t.Errorf("%s: not seen", start)
		}
		if uses("/proc/"+strconv.Itoa(cmd.Process.Pid), []uint64{number + 1<<30}) {
			t.Errorf("%s: seen on another device", start)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// What is no file is no table, for the genuine script as well; a pipe would be
// waited for.
func TestNoTable(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{t.TempDir(), pipe, "/nosuch"} {
		t.Setenv("RBDMAPFILE", table)
		var stderr strings.Builder
		if code := (&Command{Stdout: &stderr, Stderr: &stderr}).Run([]string{"map"}); code != 0 || !strings.Contains(stderr.String(), "no table at "+table) {
			t.Errorf("%s: exit code %d, %q", table, code, stderr.String())
		}
		if out, err := exec.Command(script, "map").CombinedOutput(); err != nil {
			t.Errorf("%s: the genuine script: %v: %s", table, err, out)
		}
	}
}
