package conformance

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// site is one of two clusters that mirror each other, and both tools on it.
type site struct {
	name          string
	genuine, ours *side
	daemon        *cluster.Cmd
}

// newSite gives both tools the same cluster and folders of their own.
func newSite(t *testing.T, name string, o cluster.Options) *site {
	t.Helper()
	s := &site{name: name, genuine: &side{name: "genuine", program: genuine.program}, ours: &side{name: "ours", program: ours.program}}
	dir := t.TempDir()
	if err := s.genuine.start(filepath.Join(dir, "genuine"), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.endDaemon()
		if log, err := os.ReadFile(s.log()); err == nil && t.Failed() {
			t.Logf("the end of the log of rbd-mirror of the %s:\n%s", name, log[max(0, len(log)-4000):])
		}
		if err := s.genuine.cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	s.ours.cluster, s.ours.dir, s.ours.env = s.genuine.cluster, filepath.Join(dir, "ours"), map[string]string{}
	if err := s.ours.emptyFolder(); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		`{"prefix": "osd pool create", "pool": "all", "pg_num": 8}`,
		`{"prefix": "osd pool application enable", "pool": "all", "app": "rbd"}`,
	} {
		if _, err := s.genuine.cluster.MonCommand(command); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.genuine.cluster.AddUser("client.daemon", "mon", "profile rbd-mirror", "osd", "profile rbd"); err != nil {
		t.Fatal(err)
	}
	return s
}

// startDaemon starts the site's rbd-mirror. Its defaults are for links between
// cities: it looks once in half a minute for what has changed.
func (s *site) startDaemon(t *testing.T) {
	t.Helper()
	c := s.genuine.cluster
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d := c.Daemon(context.Background(), "rbd-mirror", "-f", "-c", c.Conf(), "--id", "daemon", "--log-to-stderr=true",
		"--rbd-mirror-pool-replayers-refresh-interval=1", "--rbd-mirror-image-state-check-interval=1", "--rbd-mirror-leader-heartbeat-interval=1",
		"--rbd-mirror-journal-poll-age=1")
	// By CEPH_CONF it would take the local cluster's file for the remote one too. It looks for NAME.conf where it is,
	// and finds none for the remote one: of that it knows what the pool does.
	d.Env, d.Dir = []string{"PATH=" + os.Getenv("PATH")}, c.Dir()
	d.Stdout, d.Stderr = log, log
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	s.daemon = d
}

func (s *site) log() string { return filepath.Join(s.genuine.cluster.Dir(), "log", "rbd-mirror") }

func (s *site) endDaemon() {
	if s.daemon != nil {
		_ = s.daemon.Process.Signal(syscall.SIGKILL)
		_ = s.daemon.Wait()
		s.daemon = nil
	}
}

// do runs a line that has to succeed by one of the tools.
func (s *site) do(t *testing.T, tool *side, line string) answer {
	t.Helper()
	began := time.Now()
	a, err := tool.run(tool.program, strings.Fields(line), "")
	if err != nil || a.code != 0 {
		t.Fatalf("%s: rbd %s by %s: %v: %s", s.name, line, tool.name, err, a)
	}
	t.Logf("%s: %4d ms: rbd %s", s.name, time.Since(began).Milliseconds(), line)
	return a
}

// same asks both tools the same of the same cluster. The daemons may report
// something new between the two, but not each time.
func (s *site) same(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		var diff string
		for range 5 {
			answers := make([]answer, 2)
			for i, tool := range []*side{s.genuine, s.ours} {
				var err error
				if answers[i], err = tool.run(tool.program, strings.Fields(line), ""); err != nil {
					t.Fatal(err)
				}
			}
			if diff = compare(answers[0], answers[1], false); diff == "" {
				t.Logf("%s: rbd %s\n%s", s.name, line, answers[0])
				break
			}
		}
		if diff != "" {
			t.Errorf("%s: rbd %s\n%s", s.name, line, diff)
		}
	}
}

// await runs a line by one of the tools until it succeeds and prints what is
// wanted.
func (s *site) await(t *testing.T, tool *side, line, want string) {
	t.Helper()
	pattern := regexp.MustCompile(want)
	began := time.Now()
	for {
		a, err := tool.run(tool.program, strings.Fields(line), "")
		if err != nil {
			t.Fatal(err)
		}
		if a.code == 0 && pattern.MatchString(a.stdout) {
			t.Logf("%s: after %d ms: rbd %s: %s", s.name, time.Since(began).Milliseconds(), line, want)
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: rbd %s does not come to %q: %s", s.name, line, want, a)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// sum is of an image's content.
func (s *site) sum(t *testing.T, image string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := s.genuine.cluster.Command(ctx, genuine.program, "export", image, "-", "--no-progress").Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return fmt.Sprintf("%s: %s", s.name, exit.Stderr) // while it is synced it may be gone
	} else if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(out))
}

// arrives waits until an image has the same content on another site.
func (s *site) arrives(t *testing.T, other *site, image string) {
	t.Helper()
	began := time.Now()
	for want := s.sum(t, image); ; time.Sleep(200 * time.Millisecond) {
		got := other.sum(t, image)
		if got == want {
			t.Logf("%s has %s of %s after %d ms", other.name, image, s.name, time.Since(began).Milliseconds())
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%s does not get %s of %s: %s instead of %s", other.name, image, s.name, got, want)
		}
	}
}

// write changes an image's content.
func (s *site) write(t *testing.T, image string) {
	t.Helper()
	before := s.sum(t, image)
	s.do(t, s.ours, "bench "+image+" --io-type write --io-size 4K --io-total 256K --io-pattern rand")
	if s.sum(t, image) == before {
		t.Fatalf("%s: nothing was written to %s", s.name, image)
	}
}

// Two clusters with a real rbd-mirror each. What is told of them is asked of
// both tools; what is done is done by ours, and the data have to come over.
func TestMirror(t *testing.T) {
	if _, err := exec.LookPath("rbd-mirror"); err != nil {
		t.Fatal("apt-get install --no-install-recommends -y rbd-mirror")
	}
	// What the west holds is to outlive its outage. Without a mgr a status waits
	// for one.
	east := newSite(t, "east", cluster.Options{Mgr: true})
	west := newSite(t, "west", cluster.Options{Mgr: true, Store: cluster.Bluestore, Beside: east.genuine.cluster})

	for _, s := range []*site{east, west} {
		s.do(t, s.ours, "mirror pool enable rbd image --site-name "+s.name)
		s.do(t, s.ours, "mirror pool enable all pool")
	}
	bootstrap := func(from *site, by *side, to *site, with *side, pool string) {
		t.Helper()
		token := from.do(t, by, "mirror pool peer bootstrap create "+pool)
		if err := os.WriteFile(filepath.Join(with.dir, "token"), []byte(token.raw), 0o600); err != nil {
			t.Fatal(err)
		}
		to.do(t, with, "mirror pool peer bootstrap import "+pool+" token")
	}
	bootstrap(east, east.ours, west, west.genuine, "rbd")
	bootstrap(west, west.genuine, east, east.ours, "all")
	east.startDaemon(t)
	west.startDaemon(t)

	data, err := randomData("16777216", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(east.ours.dir, "data"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	images := []string{"rbd/journal", "rbd/snapshot", "all/each"}
	for _, image := range images {
		line := "import data " + image + " --no-progress"
		if image != "rbd/snapshot" {
			line += " --image-feature exclusive-lock,journaling"
		}
		east.do(t, east.ours, line)
	}
	east.do(t, east.ours, "mirror image enable rbd/journal journal")
	east.do(t, east.ours, "mirror image enable rbd/snapshot snapshot")
	for _, image := range images {
		east.arrives(t, west, image)
	}
	// What comes after the first copy.
	for _, image := range images {
		east.write(t, image)
	}
	if id := east.do(t, east.ours, "mirror image snapshot rbd/snapshot"); !regexp.MustCompile(`^Snapshot ID: \d+\n$`).MatchString(id.stdout) {
		t.Errorf("mirror image snapshot: %s", id)
	}
	for _, image := range images {
		east.arrives(t, west, image)
	}

	told := []string{
		"mirror pool status rbd", "mirror pool status all --verbose", "mirror pool status rbd --verbose",
		"mirror pool status rbd --verbose --format json", "mirror pool status rbd --verbose --format json --pretty-format",
		"mirror pool status rbd --verbose --format xml", "mirror pool status rbd --verbose --format xml --pretty-format",
		"mirror pool status all --format json",
		"mirror pool info rbd", "mirror pool info rbd --all", "mirror pool info all --all --format json", "mirror pool info rbd --all --format xml --pretty-format",
	}
	for _, image := range images {
		for _, format := range []string{"", " --format json", " --format json --pretty-format", " --format xml", " --format xml --pretty-format"} {
			told = append(told, "mirror image status "+image+format)
		}
	}
	// In good order the other way, and asked there: a daemon reports each turn, but of the first copy now and then only
	// after half a minute.
	for _, image := range images {
		turn(t, east, west, image)
	}
	for _, image := range images {
		east.await(t, east.genuine, "mirror image status "+image, `state: +up\+replaying`)
	}
	east.same(t, told...)
	west.same(t, told...)
	// None of these may be done there.
	east.same(t, "mirror image promote rbd/journal", "mirror image promote rbd/snapshot", "mirror image demote rbd/journal",
		"mirror image snapshot rbd/snapshot", "mirror image snapshot rbd/journal", "snap create rbd/journal@x")
	west.same(t, "mirror image promote rbd/journal", "mirror image resync rbd/journal", "mirror image resync rbd/snapshot")

	// An outage of the west, which has written last.
	west.endDaemon()
	if err := west.genuine.cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, image := range images {
		east.same(t, "mirror image promote "+image)
		east.do(t, east.ours, "mirror image promote --force "+image)
		east.write(t, image)
	}
	east.same(t, told...)

	// Both were primary: what the west has of its own is given up.
	if err := west.genuine.cluster.Restart(); err != nil {
		t.Fatal(err)
	}
	east.do(t, east.ours, "mirror image snapshot rbd/snapshot")
	west.startDaemon(t)
	for _, image := range images {
		west.do(t, west.ours, "mirror image demote "+image)
	}
	for _, image := range images {
		west.await(t, west.genuine, "mirror image status "+image, "description: split-brain")
	}
	west.same(t, told...)
	for _, image := range images {
		west.do(t, west.ours, "mirror image resync "+image)
		east.arrives(t, west, image)
	}
}

// turn makes an image primary on the other site, in good order.
func turn(t *testing.T, from, to *site, image string) {
	t.Helper()
	from.do(t, from.ours, "mirror image demote "+image)
	// Not before the other site has seen it.
	to.await(t, to.ours, "mirror image promote "+image, "^Image promoted to primary\n$")
	to.write(t, image)
	if image == "rbd/snapshot" {
		to.do(t, to.ours, "mirror image snapshot "+image)
	}
	to.arrives(t, from, image)
}
