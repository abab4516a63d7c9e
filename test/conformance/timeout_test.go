package conformance

import (
	"bytes"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// longLease lets an OSD be paused for longer than 8 s. Its lease to serve reads is for 0.8 times osd_heartbeat_grace, 16 s,
// and is renewed when half of it is over; an OSD that is the only one does not get another once it has ended.
var longLease = cluster.Options{Config: []string{"osd_pool_default_read_lease_ratio = 30"}}

const stands = "hint: the cluster left a request without an answer"

// A cluster that does not answer ends every command in bounded time, where the
// genuine tool waits for ever. Work that goes on is not ended, however long it
// takes.
func TestTimeout(t *testing.T) {
	t.Parallel() // it mostly waits
	c := cluster.Start(t, longLease)
	for _, line := range []string{
		"create i --size 64M --object-size 8K", "bench --io-type write --io-size 4M --io-total 64M --io-pattern seq i", "snap create i@s --no-progress",
		"snap protect i@s", "clone i@s child", "create gone --size 8M", "create b --size 64M",
		"create short --size 8M --object-size 8K", "bench --io-type write --io-size 8M --io-total 8M short",
	} {
		if r := c.Rbd(strings.Fields(line)...); r.Code != 0 {
			t.Fatal(line, ": ", r.Stderr)
		}
	}
	// Each takes a minute.
	const slowly = " --rbd-qos-iops-limit 16 --rbd-concurrent-management-ops 1 --no-progress"

	t.Run("work that goes on", func(t *testing.T) {
		r := begin(t, c, "cp short copied --timeout 1 --rbd-qos-iops-limit 400 --no-progress").end()
		if r.code != 0 || r.took < 2*time.Second {
			t.Errorf("ended with %d after %v: %s", r.code, r.took, r.said)
		}
	})
	t.Run("OSD", func(t *testing.T) {
		// What is at work already, and what has yet to begin.
		var working []*running
		for _, line := range []string{
			"cp i x" + slowly, "deep cp i y" + slowly, "export i -" + slowly, "flatten child" + slowly,
			"bench --io-type write --io-total 1G --rbd-cache=false b", "watch gone",
		} {
			working = append(working, begin(t, c, line+" --timeout 2"))
		}
		time.Sleep(3 * time.Second)
		during(t, c.Pause, c.Resume, "osd.0", func() {
			for _, line := range []string{
				"ls", "ls -l", "info i", "create new --size 1M", "rm gone --no-progress", "import /etc/hosts new --no-progress", "snap create i@t --no-progress",
				"resize i --size 1G --no-progress", "du i", "du --rbd-concurrent-management-ops 1", "ls -l --rbd-concurrent-management-ops 1", "lock ls i", "image-meta set i k v", "trash ls", "pool stats", "children i",
			} {
				working = append(working, begin(t, c, line+" --timeout 2"))
			}
			for _, r := range working {
				if strings.HasPrefix(r.line, "watch") {
					continue // waits for notifications, not for an answer
				}
				r.check(t, 110, stands)
			}
		})
		for i, image := range []string{"x", "y"} {
			if want := "hint: the image " + image + " is not complete: remove it with \"rbd rm " + image + "\""; !strings.Contains(working[i].said, want) {
				t.Errorf("%s: no %q in %q", working[i].line, want, working[i].said)
			}
		}
		// The next are about something else than an OSD that has yet to come to itself.
		if r := c.Rbd("create", "resumed", "--size", "1M"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		watch := working[5]
		if watch.over() {
			t.Errorf("%s: ended with %d: %s", watch.line, watch.code, watch.said)
		}
		if err := watch.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	t.Run("monitor", func(t *testing.T) {
		during(t, c.Pause, c.Resume, "mon.a", func() {
			begin(t, c, "ls --timeout 2").check(t, 110, "hint: monitor 10.91.0.1:3300 can be reached, but did not answer in time")
		})
	})
	t.Run("blocklist", func(t *testing.T) {
		r := begin(t, c, "cp i z"+slowly)
		if _, err := c.MonCommand(`{"prefix": "osd blocklist", "blocklistop": "add", "addr": "` + watcherOf(t, c, "z") + `"}`); err != nil {
			t.Fatal(err)
		}
		r.check(t, 108, "hint: this client was put on the blocklist")
	})
	t.Run("network", func(t *testing.T) {
		link := func(state string) func(...string) error {
			return func(...string) error {
				return c.Command(t.Context(), "ip", "link", "set", "dev", "lo", state).Run()
			}
		}
		r := begin(t, c, "cp i lost"+slowly+" --timeout 2")
		watcherOf(t, c, "lost")
		during(t, link("down"), link("up"), "", func() {
			r.check(t, 110, stands)
			begin(t, c, "ls --timeout 2").check(t, 110, "hint: monitor 10.91.0.1:3300 cannot be reached: ")
		})
	})
	t.Run("full", func(t *testing.T) {
		for _, ratio := range []string{"nearfull", "backfillfull", "full"} {
			if _, err := c.MonCommand(`{"prefix": "osd set-` + ratio + `-ratio", "ratio": 0.00001}`); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
			dump, err := c.MonCommand(`{"prefix": "osd dump"}`)
			if err != nil || time.Now().After(end) {
				t.Fatalf("not full: %v: %s", err, dump)
			}
			if regexp.MustCompile(`pool .* flags \S*full`).Match(dump) {
				break
			}
		}
		begin(t, c, "create new --size 1M --timeout 2").check(t, 110, stands)
		begin(t, c, "ls --timeout 2").check(t, 0, "")
	})
}

// The configuration bounds as --timeout does, also that part of it that the
// monitors keep.
func TestConfiguredTimeout(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, longLease)
	err := c.Do(func() error {
		connection, _, err := ceph.New([]string{"--conf", c.Conf()}, io.Discard)
		if err != nil {
			return err
		}
		defer connection.Shutdown()
		if _, err := connection.Connect(); err != nil {
			return err
		}
		for _, option := range []string{"client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"} {
			// 18 and later print them without decimals.
			if got, _, _ := strings.Cut(connection.Config(option), "."); got != ceph.DefaultTimeout {
				t.Errorf("%s is %s by default, want %s", option, got, ceph.DefaultTimeout)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.MonCommand(`{"prefix": "config set", "who": "client", "name": "rados_osd_op_timeout", "value": "2"}`); err != nil {
		t.Fatal(err)
	}
	during(t, c.Pause, c.Resume, "osd.0", func() {
		begin(t, c, "ls").check(t, 110, stands)
		begin(t, c, "ls --timeout 1").check(t, 110, stands)
		begin(t, c, "ls --rados-osd-op-timeout 1").check(t, 110, stands)
		// Without a bound.
		r := begin(t, c, "ls --timeout 0")
		time.Sleep(4 * time.Second)
		if r.over() {
			t.Errorf("%s: ended with %d after %v: %s", r.line, r.code, r.took, r.said)
		}
	})
}

// A host whose clock is wrong works as others do: tickets of cephx are judged by
// the cluster's clock.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	if err != nil || len(found) == 0 {
		t.Fatal("no libfaketime: apt-get install libfaketime")
	}
	c := cluster.Start(t, cluster.Options{})
	if r := c.Rbd("create", "i", "--size", "8M"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	for _, clock := range []string{"@2015-01-01 00:00:00", "-25h", "+25h", "@2036-01-01 00:00:00"} {
		// The Ceph libraries of ours see the wrong time; Go asks the kernel.
		cmd := func(line string) *cluster.Cmd {
			cmd := c.Command(t.Context(), ours.program, strings.Fields(line)...)
			cmd.Env = append(cmd.Env, "LD_PRELOAD="+found[0], "FAKETIME="+clock, "FAKETIME_DONT_FAKE_MONOTONIC=1")
			return cmd
		}
		beginCmd(t, cmd("bench --io-type write --io-total 1M --io-size 64K i --timeout 20"), clock).check(t, 0, "")
		year := ""
		if day, ok := strings.CutPrefix(clock, "@"); ok {
			year = day[:4] + "-01-01T"
		}
		// librbd's log shows that the clock is wrong indeed.
		beginCmd(t, cmd("snap rm i@nothing --timeout 20 --debug-rbd 5 --log-to-stderr true"), clock).check(t, 2, year)
	}
}

// watcherOf is the address of who has an image open: it waits until somebody has.
func watcherOf(t *testing.T, c *cluster.Cluster, image string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status := c.Rbd("status", image)
		if watcher := regexp.MustCompile(`watcher=(\S+)`).FindStringSubmatch(status.Stdout); watcher != nil {
			return watcher[1]
		}
		if time.Now().After(end) {
			t.Fatalf("nobody has %s open: %s%s", image, status.Stdout, status.Stderr)
		}
	}
}

// during does something in a state.
func during(t *testing.T, begin, end func(...string) error, name string, do func()) {
	t.Helper()
	if err := begin(name); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := end(name); err != nil {
			t.Error(err)
		}
	}()
	do()
}

// running is a line of ours that runs.
type running struct {
	line  string
	cmd   *cluster.Cmd
	began time.Time
	out   bytes.Buffer
	done  chan struct{}

	// Set when it is over.
	code int
	took time.Duration
	said string
}

func begin(t *testing.T, c *cluster.Cluster, line string) *running {
	t.Helper()
	return beginCmd(t, c.Command(t.Context(), ours.program, strings.Fields(line)...), line)
}

func beginCmd(t *testing.T, cmd *cluster.Cmd, line string) *running {
	t.Helper()
	r := &running{line: line, cmd: cmd, began: time.Now(), done: make(chan struct{})}
	r.cmd.Stderr = &r.out
	if _, err := r.cmd.StdinPipe(); err != nil { // its end would end "rbd watch"
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
		r.code, r.took, r.said = r.cmd.ProcessState.ExitCode(), time.Since(r.began), r.out.String()
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
	})
	return r
}

func (r *running) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *running) end() *running {
	<-r.done
	return r
}

// check waits for the end, and not for longer than a command may take that has
// a timeout of two seconds on a busy machine.
func (r *running) check(t *testing.T, code int, say string) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(40 * time.Second):
		t.Errorf("%s: does not end", r.line)
		return
	}
	t.Logf("%v: %s", r.took.Round(10*time.Millisecond), r.line)
	if r.code != code || !strings.Contains(r.said, say) {
		t.Errorf("%s: ended with %d after %v, want %d and %q: %s", r.line, r.code, r.took, code, say, r.said)
	}
}
