package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func waitFor(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s", name)
		}
	}
}

// TestOneAtATime: the second installer is told who the first is, and what the
// first leaves behind when it is killed is in nobody's way.
func TestOneAtATime(t *testing.T) {
	src := source(t, "one")
	root := bare(t)
	before := snapshot(t, root)

	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.root.Close()
	unlock, err := tr.lock()
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"install", "uninstall"} {
		want := fmt.Sprintf("another installer, pid %d, is at work on this node: wait until it is done", os.Getpid())
		if err := act(action, root, src, nil); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s got %v, want %q", action, err, want)
		}
	}
	// Looking needs no lock.
	plan(t, root, src)
	status(t, root)
	unlock()

	other := exec.Command("unshare", "--uts", "sh", "-c", `hostname pod-7; exec "$0"`, os.Args[0])
	other.Env = append(os.Environ(), envAction+"=lock", envRoot+"="+root, envAfter+"=0")
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, filepath.Join(root, lockFile))
	waitHeld := time.Now().Add(20 * time.Second)
	for {
		err := act("install", root, src, nil)
		if err != nil && strings.HasSuffix(err.Error(), fmt.Sprintf("another installer, pid %d in pod-7, is at work on this node: wait until it is done", other.Process.Pid)) {
			break
		}
		if time.Now().After(waitHeld) {
			t.Fatalf("got %v", err)
		}
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	stdin.Close()
	mustAct(t, "install", root, src)
	mustAct(t, "uninstall", root, src)
	if diff := len(snapshot(t, root)) - len(before); diff != 0 {
		t.Errorf("%d files are left", diff)
	}
}

// TestLockRace: of many installers at once each has the lock alone.
func TestLockRace(t *testing.T) {
	root := bare(t)
	var wg sync.WaitGroup
	var in, most, times int
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			tr, err := openTree(root)
			if err != nil {
				t.Error(err)
				return
			}
			defer tr.root.Close()
			for range 200 {
				unlock, err := tr.lock()
				if err != nil {
					if !strings.Contains(err.Error(), "at work on this node") {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				in++
				most = max(most, in)
				times++
				mu.Unlock()
				time.Sleep(50 * time.Microsecond)
				mu.Lock()
				in--
				mu.Unlock()
				unlock()
			}
		})
	}
	wg.Wait()
	if most != 1 || times < 8 {
		t.Errorf("%d had it at the same time, %d had it at all", most, times)
	}
}

func TestNoNode(t *testing.T) {
	root := bare(t)
	if err := os.Remove(filepath.Join(root, "run")); err != nil {
		t.Fatal(err)
	}
	if err := act("install", root, source(t, "one"), nil); err == nil || !strings.Contains(err.Error(), "is it the root folder of a node?") {
		t.Errorf("got %v", err)
	}
}
