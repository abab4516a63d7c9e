package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func TestCachedBuildsOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	started := make(chan struct{}, 10)
	var g errgroup.Group
	for range 5 {
		g.Go(func() error {
			// Each call opens the lock by itself, as another process does.
			dir, err := cached(t.Context(), "thing", newKey("a"), func(dir string) error {
				started <- struct{}{}
				return os.WriteFile(filepath.Join(dir, "file"), []byte("whole"), 0o644)
			})
			if err != nil {
				return err
			}
			_, err = os.Stat(filepath.Join(dir, "file"))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(started) != 1 {
		t.Errorf("built %d times", len(started))
	}
	other, err := cached(t.Context(), "thing", newKey("b"), func(string) error { return nil })
	if _, statErr := os.Stat(filepath.Join(other, "file")); err != nil || statErr == nil {
		t.Errorf("another key has the same entry: %v", err)
	}
}

func TestCachedKeepsNoHalfEntry(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	base, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	// What a killed build leaves.
	if err := os.MkdirAll(filepath.Join(base, "thing.tmp", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no space")
	if _, err := cached(t.Context(), "thing", newKey("a"), func(string) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("error of a failed build: %v", err)
	}
	dir, err := cached(t.Context(), "thing", newKey("a"), func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "file" {
		t.Errorf("the entry holds %v, %v", files, err)
	}
	left, err := filepath.Glob(filepath.Join(base, "*.tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnusedEntriesGo(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	nothing := func(string) error { return nil }
	entry := func(part string) string {
		t.Helper()
		dir, err := cached(t.Context(), "thing", newKey(part), nothing)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	used, old := entry("used"), entry("old")
	longAgo := time.Now().Add(-unused - time.Hour)
	if err := errors.Join(os.Chtimes(used, longAgo, longAgo), os.Chtimes(old, longAgo, longAgo)); err != nil {
		t.Fatal(err)
	}
	entry("used")
	entry("new")
	if !exists(used) || exists(old) {
		t.Errorf("the used one is there: %v; the old one: %v", exists(used), exists(old))
	}
}

func TestKeyIsOfContents(t *testing.T) {
	root := t.TempDir()
	sum := func() string {
		k := newKey("x")
		if err := k.addFolders(root, "."); err != nil {
			t.Fatal(err)
		}
		return string(k.Sum(nil))
	}
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("a.go", "one", 0o644)
	before := sum()
	write("a_test.go", "two", 0o644)
	if sum() != before {
		t.Error("a test counts")
	}
	write("a.go", "One", 0o644)
	changed := sum()
	if changed == before {
		t.Error("a changed file does not count")
	}
	write("a.go", "One", 0o755)
	if sum() == changed {
		t.Error("a changed mode does not count")
	}
	if string(newKey("ab", "c").Sum(nil)) == string(newKey("a", "bc").Sum(nil)) {
		t.Error("parts run into each other")
	}
}

func TestMissingToolsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Build(t.Context(), os.Stderr)
	if err == nil || !strings.Contains(err.Error(), "apt-get install -y --no-install-recommends") || !strings.Contains(err.Error(), "qemu-system-x86") {
		t.Errorf("error without any tool: %v", err)
	}
}
