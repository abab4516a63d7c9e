package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// Who has an image open, and from where, is what a person needs whose image
// cannot be removed.
func TestWatcherHint(t *testing.T) {
	if r := ours.cluster.Rbd("create", "watched", "--size", "1M"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if err := ours.watch([]string{"watched"}); err != nil {
		t.Fatal(err)
	}
	status := ours.cluster.Rbd("status", "watched")
	watcher := regexp.MustCompile(`watcher=(\S+) (client\.\d+)`).FindStringSubmatch(status.Stdout)
	if watcher == nil {
		t.Fatalf("no watcher: %s", status.Stdout)
	}
	out, err := ours.cluster.Command(t.Context(), ours.program, "rm", "--no-progress", "watched").CombinedOutput()
	ours.endWatches()
	if err == nil {
		t.Fatal("a watched image was removed")
	}
	if want := "hint: " + watcher[2] + " at " + watcher[1] + " has it open"; !strings.Contains(string(out), want) {
		t.Errorf("got %s, want %s", out, want)
	}
}

// Content that is replaced under somebody who has the image open is told, with
// the client's name, after what the genuine tool says.
func TestChangedUnderWatcher(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"create used --size 8M", "snap create used@s --no-progress", "create free --size 8M", "snap create free@s --no-progress"} {
		if r := ours.cluster.Rbd(strings.Fields(line)...); r.Code != 0 {
			t.Fatal(line, ": ", r.Stderr)
		}
	}
	if err := ours.watch([]string{"used"}); err != nil {
		t.Fatal(err)
	}
	defer ours.endWatches()
	diff := filepath.Join(t.TempDir(), "diff")
	// The size, and the end.
	if err := os.WriteFile(diff, []byte("rbd diff v1\ns\x00\x00\x80\x00\x00\x00\x00\x00e"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := ours.cluster.Rbd("status", "used")
	watcher := regexp.MustCompile(`watcher=(\S+) (client\.\d+)`).FindStringSubmatch(status.Stdout)
	if watcher == nil {
		t.Fatalf("no watcher: %s", status.Stdout)
	}
	hint := "hint: " + watcher[2] + " at " + watcher[1] + " has the image open"
	for line, want := range map[string]string{
		"snap rollback used@s":          "\rRolling back to snapshot: 100% complete...done.\n" + hint,
		"import-diff " + diff + " used": "\rImporting image diff: 100% complete...done.\n" + hint,
		"snap rollback free@s":          "",
		"import-diff " + diff + " free": "",
	} {
		out, err := ours.cluster.Command(t.Context(), ours.program, strings.Fields(line)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || want == "" && strings.Contains(string(out), "hint") {
			t.Errorf("%s: %v, %q, want %q", line, err, out, want)
		}
	}
}

// What keeps an image from being removed or made smaller, and what has no hint.
func TestImageHints(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"create hinted --size 8M",
		"snap create hinted@keep --no-progress",
		"snap protect hinted@keep",
		"clone hinted@keep hinted-child",
		"create plain --size 8M --image-feature layering",
		"snap create plain@free --no-progress",
	} {
		if r := ours.cluster.Rbd(strings.Fields(line)...); r.Code != 0 {
			t.Fatal(line, ": ", r.Stderr)
		}
	}
	for line, want := range map[string][]string{
		"rm --no-progress hinted": {
			`hint: snapshot keep is protected: "rbd snap unprotect hinted@keep" comes first`,
			"hint: clones of it: hinted-child",
			`hint: "rbd snap purge hinted" removes its snapshots: keep`,
		},
		"snap rm --no-progress hinted@keep": {
			`hint: "rbd snap unprotect hinted@keep" comes first`,
			`hint: clones of it, to be flattened ("rbd flatten") or removed first: rbd/hinted-child`,
		},
		"snap unprotect hinted@keep":              {`hint: clones of it, to be flattened ("rbd flatten") or removed first: rbd/hinted-child`},
		"snap rollback --no-progress hinted@no":   {"hint: snapshots of the image: keep"},
		"info hinted@no":                          {"hint: snapshots of the image: keep"},
		"snap create --no-progress hinted@keep":   {"hint: snapshots of the image: keep"},
		"clone plain@free other":                  {`hint: the snapshot is not protected: "rbd snap protect plain@free", or clone with --rbd-default-clone-format 2`},
		"rm --no-progress plain":                  {`hint: "rbd snap purge plain" removes its snapshots: free`},
		"feature enable plain fast-diff":          {"hint: fast-diff needs exclusive-lock: enable it first, or both at once", "hint: fast-diff needs object-map: enable it first, or both at once"},
		"feature enable plain layering":           {"hint: layering is enabled already"},
		"create plain --size 1M":                  {`hint: an image of that name is there already: take another name, or look at it with "rbd info"`},
		"import /etc/hosts plain --no-progress":   {`hint: an image of that name is there already: take another name, or look at it with "rbd info"`},
		"info rbd/nothere/plain":                  {"hint: namespaces of this pool: none"},
		"info nothere/plain":                      {"hint: pools of this cluster: rbd"},
		"info nothere":                            nil,
		"feature enable plain object-map --bogus": nil,
		"resize hinted --size 1M":                 {"hint: the image has 8 MiB: what lies beyond 1 MiB would be lost, so shrink the file system first"},
		"resize hinted --size 8M":                 nil, // the size is the same
		"feature enable hinted bogus":             nil, // ends with 1, the number of a refusal, but nobody asked the cluster
		"info hinted":                             nil,
	} {
		var hints []string
		out, _ := ours.cluster.Command(t.Context(), ours.program, strings.Fields(line)...).CombinedOutput()
		for text := range strings.Lines(string(out)) {
			if strings.HasPrefix(text, "hint: ") {
				hints = append(hints, strings.TrimSuffix(text, "\n"))
			}
		}
		if diff := cmp.Diff(want, hints); diff != "" {
			t.Errorf("%s (-want +got):\n%s%s", line, diff, out)
		}
	}
}

// The lock of the exclusive-lock feature is there while somebody writes, and
// has a tag as a shared lock has.
func TestExclusiveLock(t *testing.T) {
	c := ours.cluster
	if r := c.Rbd("create", "written", "--size", "64M"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	writeTo(t, "written")
	for _, line := range []string{"lock ls written", "lock ls written --format json", "ls -l", "ls -l --format json"} {
		want := c.Rbd(strings.Fields(line)...).Stdout
		got, err := c.Command(t.Context(), ours.program, strings.Fields(line)...).CombinedOutput()
		if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
			t.Errorf("rbd %s: %v (-genuine +ours):\n%s", line, err, diff)
		}
	}
}

// writeTo has an image written, and so locked, by the genuine tool until the
// test ends.
func writeTo(t *testing.T, image string) *os.Process {
	t.Helper()
	c := ours.cluster
	writer := c.Daemon(t.Context(), "/usr/bin/rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "1T", "--io-threads", "1", image)
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := writer.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = writer.Wait() // it was killed
	})
	for end := time.Now().Add(20 * time.Second); c.Rbd("lock", "ls", image).Stdout == ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the writer takes no lock")
		}
	}
	return writer.Process
}

// Who has the lock and does not answer is told while a command waits for it,
// and not where it only reads or waits for its own input.
func TestStandstill(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	diff := filepath.Join(t.TempDir(), "diff")
	// The size, four bytes of data, and the end.
	if err := os.WriteFile(diff, []byte("rbd diff v1\ns\x00\x00\x80\x00\x00\x00\x00\x00w\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00datae"), 0o600); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for image, c := range map[string]struct {
		line   string
		waits  bool
		unread bool // its output
		unfed  bool // its input
	}{
		"resized":  {line: "resize --size 16M resized", waits: true},
		"changed":  {line: "import-diff " + diff + " changed", waits: true},
		"piped":    {line: "import-diff - piped", unfed: true},
		"exported": {line: "export exported -", unread: true},
	} {
		if r := ours.cluster.Rbd("create", image, "--size", "8M"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		writer := writeTo(t, image)
		if err := writer.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		holder := regexp.MustCompile(`client\.\d+`).FindString(ours.cluster.Rbd("lock", "ls", image).Stdout)
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := ours.cluster.Command(ctx, ours.program, strings.Fields(c.line)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if c.unfed {
				in, err := cmd.StdinPipe()
				if err != nil {
					return err
				}
				defer in.Close()
				if _, err := io.WriteString(in, "rbd diff v1\n"); err != nil {
					return err
				}
			}
			if c.unread {
				out, err := cmd.StdoutPipe()
				if err != nil {
					return err
				}
				defer out.Close()
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			time.Sleep(13 * time.Second)
			if err := writer.Signal(syscall.SIGCONT); err != nil {
				return err
			}
			if c.unfed || c.unread {
				if err := cmd.Process.Kill(); err != nil {
					return err
				}
			}
			err := cmd.Wait()
			said := strings.Contains(stderr.String(), "hint: waiting for "+holder+" at ")
			if said != c.waits || c.waits && err != nil {
				return fmt.Errorf("%s: %w, %q", c.line, err, stderr.String())
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
