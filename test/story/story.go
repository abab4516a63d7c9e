// Package story is what the project is for, from end to end and on real parts:
// a node with a read-only /usr and no rbd, a kubelet whose pod cannot start, one
// run of the installer, and the pod's Ceph disk mapped, mounted, written,
// unmounted and unmapped; then a reboot, a second run, and everything taken
// back.
//
// test/node runs the steps as a test, test/demo shows them to a person. Each
// step proves what it says and returns an error where that does not hold. What
// a single part does in unusual cases is tested elsewhere.
package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

// Step is one part of the story; each needs the ones before it.
type Step struct {
	Title string
	Run   func(*Story, context.Context) error
}

// Steps are the story in its order.
var Steps = []Step{
	{"A Ceph cluster, and a node with a read-only /usr and no rbd", (*Story).boot},
	{"Kubelet gets a pod with a Ceph disk and cannot start it", (*Story).podFails},
	{"The installer says what it would change, and changes nothing", (*Story).plan},
	{"The installer runs, once", (*Story).install},
	{"The pod's disk is mapped, formatted, mounted and written", (*Story).podStarts},
	{"The pod goes: unmounted, unmapped, no watcher left", (*Story).podGoes},
	{"The pod comes back, and its data is there", (*Story).podComesBack},
	{"An admin's day in a shell on the node", (*Story).admin},
	{"An ordinary user lists images", (*Story).ordinaryUser},
	{"The node reboots, and the pod's disk comes back by itself", (*Story).reboot},
	{"The installer runs again and changes nothing", (*Story).installAgain},
	{"The installer takes everything back", (*Story).uninstall},
}

// Story is the cluster, the node and what is remembered from step to step.
type Story struct {
	Bin string                        // folder with installer, shim and payload
	Say func(format string, a ...any) // what a person would like to see happen
	Log io.Writer                     // told of what takes long: building the node and kubelet

	cluster *cluster.Cluster
	node    *node.VM

	kubelet string // invocation of kubelet's unit before the installer ran
	pid     string // kubelet's pid after it
	before  map[string]string
	usr     string
	lines   int // lines on the pod's disk
}

// Close ends the node and the cluster.
func (s *Story) Close() error {
	if s.node != nil {
		s.node.Kill()
	}
	if s.cluster != nil {
		return s.cluster.Close()
	}
	return nil
}

// Console is the end of what the node's kernel has said.
func (s *Story) Console() string {
	if s.node == nil {
		return ""
	}
	return s.node.Console()
}

const (
	rbd      = "/opt/bin/rbd"
	manifest = "/etc/kubernetes/manifests/writer.json"
	disk     = "disk" // the pod's image
	luggage  = "/root/opt-rbd"
)

func (s *Story) boot(ctx context.Context) (err error) {
	// A watcher of a node that went down is forgotten after 8 s and not after
	// Ceph's 30: the reboot below waits for that.
	s.cluster, err = cluster.New(ctx, cluster.Options{Config: []string{"osd_client_watch_timeout = 8"}})
	if err != nil {
		return err
	}
	s.Say("a cluster with one monitor and one OSD, at %s", s.cluster.MonV1())
	if _, err := s.cluster.AddUser("client.kube", "mon", "profile rbd", "osd", "profile rbd pool=rbd"); err != nil {
		return err
	}
	if r := s.cluster.Rbd("create", disk, "--size", "64M"); r.Code != 0 {
		return fmt.Errorf("rbd create: %s", r.Stderr)
	}
	s.node, err = node.Boot(ctx, node.Options{NetNS: s.cluster.NetNS(), Kubelet: true, Log: s.Log})
	if err != nil {
		return err
	}
	for name, from := range map[string]string{
		"/etc/ceph/keyring":                   s.cluster.Keyring("client.kube"),
		"/etc/ceph/ceph.client.admin.keyring": s.cluster.Keyring("client.admin"),
	} {
		key, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := s.node.Put(ctx, name, key, 0o600); err != nil {
			return err
		}
	}
	conf := "[global]\nmon_host = " + s.cluster.MonV2() + "," + s.cluster.MonV1() + "\n"
	if err := s.node.Put(ctx, "/etc/ceph/ceph.conf", []byte(conf), 0o644); err != nil {
		return err
	}
	// Nothing of rbd, and no way to put it where programs are.
	if out, err := s.sh(ctx, "command -v rbd || find /usr/bin /usr/sbin /opt -name 'rbd*'"); err != nil || out != "" {
		return fmt.Errorf("the node has an rbd already: %s %w", out, err)
	}
	if _, err := s.sh(ctx, "touch /usr/bin/rbd"); err == nil {
		return errors.New("the node's /usr can be written")
	}
	s.Say("touch /usr/bin/rbd: read-only file system")
	if s.usr, err = s.listUsr(ctx); err != nil {
		return err
	}
	s.before, err = s.files(ctx)
	return err
}

func (s *Story) podFails(ctx context.Context) error {
	if err := s.startPod(ctx); err != nil {
		return err
	}
	const want = "fail to check rbd image status with: (executable file not found in $PATH)"
	err := s.wait(ctx, 2*time.Minute, "kubelet's failure in its log", func() (bool, error) {
		out, err := s.sh(ctx, `journalctl -u kubelet -o cat --no-pager | grep -F "$1" || :`, want)
		return out != "", err
	})
	if err != nil {
		return err
	}
	s.Say("kubelet: %s", want)
	s.kubelet, err = s.sh(ctx, "systemctl show kubelet -P InvocationID")
	return err
}

func (s *Story) plan(ctx context.Context) error {
	if err := s.node.PutDir(ctx, luggage+"/payload", filepath.Join(s.Bin, "payload")); err != nil {
		return err
	}
	for _, name := range []string{"installer", "shim"} {
		data, err := os.ReadFile(filepath.Join(s.Bin, name))
		if err != nil {
			return err
		}
		if err := s.node.Put(ctx, luggage+"/"+name, data, 0o755); err != nil {
			return err
		}
	}
	r, err := s.run(ctx, luggage+"/installer", "plan")
	if err != nil {
		return err
	}
	if r.Code != 2 {
		return fmt.Errorf("installer plan exits %d, not 2 for pending changes: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	s.sayLines(r.Stdout, 40)
	return s.unchanged(ctx)
}

func (s *Story) install(ctx context.Context) error {
	r, err := s.run(ctx, luggage+"/installer", "install")
	if err != nil {
		return err
	}
	s.sayLines(r.Stdout+r.Stderr, 40)
	if r.Code != 0 {
		return fmt.Errorf("installer install exits %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	usr, err := s.listUsr(ctx)
	if err != nil {
		return err
	}
	if usr != s.usr {
		return errors.New("/usr is not what it was")
	}
	for _, file := range []string{rbd, "/opt/rbd/current/usr/bin/rbd", "/opt/rbd/installed.json",
		"/etc/modules-load.d/rbd.conf", "/etc/systemd/system.conf.d/50-opt-rbd.conf", "/sys/bus/rbd/add_single_major"} {
		if _, err := s.sh(ctx, `test -e "$1"`, file); err != nil {
			return fmt.Errorf("no %s after the install", file)
		}
	}
	invocation, err := s.sh(ctx, "systemctl show kubelet -P InvocationID")
	if err != nil {
		return err
	}
	starts, err := s.kubeletStarts(ctx)
	if err != nil {
		return err
	}
	if invocation == s.kubelet || starts != 2 {
		return fmt.Errorf("kubelet was started %d times so far, want 2: at boot and once by the installer", starts)
	}
	s.pid, err = s.sh(ctx, "systemctl show kubelet -P MainPID")
	if err != nil {
		return err
	}
	path, err := s.sh(ctx, `tr '\0' '\n' </proc/$1/environ | sed -n 's/^PATH=//p'`, s.pid)
	if err != nil {
		return err
	}
	if !strings.Contains(":"+path+":", ":/opt/bin:") {
		return fmt.Errorf("kubelet's PATH is %q", path)
	}
	s.Say("kubelet, restarted once, has PATH=%s", path)
	return nil
}

func (s *Story) podStarts(ctx context.Context) error {
	if err := s.podWrites(ctx, 2*time.Minute); err != nil {
		return err
	}
	out, err := s.sh(ctx, "grep kubernetes.io~rbd /proc/mounts; "+rbd+" showmapped; cat /sys/bus/rbd/devices/*/config_info")
	if err != nil {
		return err
	}
	secret, err := s.cluster.Secret("client.kube")
	if err != nil {
		return err
	}
	if strings.Contains(out, secret) {
		return errors.New("the key can be read in /sys")
	}
	s.sayLines(out, 10)
	if r := s.cluster.Rbd("status", disk); !strings.Contains(r.Stdout, "watcher=") {
		return fmt.Errorf("no watcher while the disk is mapped: %s%s", r.Stdout, r.Stderr)
	}
	return nil
}

func (s *Story) podGoes(ctx context.Context) (err error) {
	if s.lines, err = s.countLines(ctx); err != nil {
		return err
	}
	return s.stopPod(ctx)
}

func (s *Story) podComesBack(ctx context.Context) error {
	if err := s.startPod(ctx); err != nil {
		return err
	}
	return s.podWritesMore(ctx, 2*time.Minute)
}

// admin is what a person does with an image, through the launcher and the
// kernel, and what the cluster says of it.
func (s *Story) admin(ctx context.Context) error {
	dev, err := s.sh(ctx, rbd+" create work --size 128M && "+rbd+" map work")
	if err != nil {
		return err
	}
	if !regexp.MustCompile(`^/dev/rbd\d+$`).MatchString(dev) {
		return fmt.Errorf("rbd map prints %q", dev)
	}
	s.Say("rbd map work: %s", dev)
	// udev's rule, which asks the launcher.
	link, err := s.sh(ctx, "readlink -f /dev/rbd/rbd/work")
	if err != nil {
		return err
	}
	if link != dev {
		return fmt.Errorf("/dev/rbd/rbd/work is %q, not %s", link, dev)
	}
	s.Say("/dev/rbd/rbd/work points there")
	// Exact: what ext4 discards does not begin at objects, which are thus cut
	// short more often than removed, and the quick answer counts them whole.
	used := func() (int64, error) {
		r := s.cluster.Rbd("du", "--exact", "work", "--format", "json")
		m := regexp.MustCompile(`"used_size":(\d+)`).FindStringSubmatch(r.Stdout)
		if m == nil {
			return 0, fmt.Errorf("rbd du: %s%s", r.Stdout, r.Stderr)
		}
		return strconv.ParseInt(m[1], 10, 64)
	}
	const mnt = "/root/work"
	if _, err := s.sh(ctx, `mkfs.ext4 -q "$1" && mkdir -p `+mnt+` && mount "$1" `+mnt+` && dd if=/dev/urandom of=`+mnt+`/big bs=1M count=48 status=none && sync`, dev); err != nil {
		return err
	}
	full, err := used()
	if err != nil {
		return err
	}
	if _, err := s.sh(ctx, "rm "+mnt+"/big && sync && fstrim "+mnt+" && echo kept >"+mnt+"/small && sync"); err != nil {
		return err
	}
	trimmed, err := used()
	if err != nil {
		return err
	}
	if full < 48<<20 || trimmed > full-40<<20 {
		return fmt.Errorf("48 MiB written: %d bytes used; removed and trimmed: %d", full, trimmed)
	}
	s.Say("48 MiB written, removed, fstrim: %d MiB used, then %d", full>>20, trimmed>>20)
	if _, err := s.sh(ctx, rbd+" snap create --no-progress work@monday && "+rbd+" resize --no-progress work --size 192M && resize2fs "+`"$1"`+" 2>/dev/null", dev); err != nil {
		return err
	}
	size, err := s.sh(ctx, `blockdev --getsize64 "$1"`, dev)
	if err != nil {
		return err
	}
	if size != strconv.Itoa(192<<20) {
		return fmt.Errorf("the device has %s bytes after the resize to 192 MiB", size)
	}
	if r, err := s.run(ctx, rbd, "unmap", dev); err != nil || r.Code != 16 {
		return fmt.Errorf("unmap of a mounted disk exits %d, not 16: %s %w", r.Code, r.Stderr, err)
	}
	out, err := s.sh(ctx, "umount "+mnt+" && rmdir "+mnt+" && "+rbd+" unmap work && "+rbd+" snap ls work && "+rbd+" snap rm --no-progress work@monday && "+rbd+" rm --no-progress work && "+rbd+" ls")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "monday") || !strings.HasSuffix(out, "\n"+disk) {
		return fmt.Errorf("snap ls, rm and ls at the end print %q", out)
	}
	s.Say("snapshot, resize to 192 MiB, unmap while mounted refused (16), unmapped, removed")
	return nil
}

// ordinaryUser has no privilege to mount: the launcher goes another way.
func (s *Story) ordinaryUser(ctx context.Context) error {
	key, err := os.ReadFile(s.cluster.Keyring("client.kube"))
	if err != nil {
		return err
	}
	if err := s.node.Put(ctx, "/home/nobody.keyring", key, 0o600); err != nil {
		return err
	}
	out, err := s.sh(ctx, `chown nobody /home/nobody.keyring
cd /home
setpriv --reuid nobody --regid nogroup --clear-groups `+rbd+` ls --id kube --keyring nobody.keyring
rm nobody.keyring`)
	if err != nil {
		return err
	}
	if out != disk {
		return fmt.Errorf("rbd ls as nobody prints %q", out)
	}
	s.Say("nobody $ rbd ls: %s", out)
	return nil
}

func (s *Story) reboot(ctx context.Context) (err error) {
	if s.lines, err = s.countLines(ctx); err != nil {
		return err
	}
	if err := s.node.Reboot(ctx); err != nil {
		return err
	}
	if _, err := s.sh(ctx, "test -d /sys/bus/rbd && "+rbd+" --version"); err != nil {
		return fmt.Errorf("module and command after the reboot: %w", err)
	}
	s.Say("up again, the module is loaded")
	if err := s.podWritesMore(ctx, 3*time.Minute); err != nil {
		return err
	}
	s.pid, err = s.sh(ctx, "systemctl show kubelet -P MainPID")
	return err
}

func (s *Story) installAgain(ctx context.Context) error {
	installed, err := s.files(ctx)
	if err != nil {
		return err
	}
	if r, err := s.run(ctx, luggage+"/installer", "plan"); err != nil || r.Code != 0 {
		return fmt.Errorf("installer plan exits %d with everything in place: %s%s %w", r.Code, r.Stdout, r.Stderr, err)
	}
	r, err := s.run(ctx, luggage+"/installer", "install")
	if err != nil || r.Code != 0 {
		return fmt.Errorf("installer install exits %d: %s%s %w", r.Code, r.Stdout, r.Stderr, err)
	}
	s.sayLines(r.Stdout, 20)
	again, err := s.files(ctx)
	if err != nil {
		return err
	}
	if d := difference(installed, again); d != "" {
		return fmt.Errorf("the second run changed something:\n%s", d)
	}
	pid, err := s.sh(ctx, "systemctl show kubelet -P MainPID")
	if err != nil {
		return err
	}
	if pid != s.pid {
		return fmt.Errorf("the second run restarted kubelet: pid %s, then %s", s.pid, pid)
	}
	s.Say("kubelet keeps its pid, %s", pid)
	return nil
}

func (s *Story) uninstall(ctx context.Context) error {
	if err := s.stopPod(ctx); err != nil {
		return err
	}
	r, err := s.run(ctx, luggage+"/installer", "uninstall")
	if err != nil {
		return err
	}
	s.sayLines(r.Stdout+r.Stderr, 20)
	if r.Code != 0 {
		return fmt.Errorf("installer uninstall exits %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := s.unchanged(ctx); err != nil {
		return err
	}
	s.Say("every file of /etc, /opt and /usr is as it was before the install")
	return nil
}

// unchanged says whether the node's files are what they were at the start.
func (s *Story) unchanged(ctx context.Context) error {
	after, err := s.files(ctx)
	if err != nil {
		return err
	}
	// The test's own manifest comes and goes.
	delete(after, manifest)
	if d := difference(s.before, after); d != "" {
		return fmt.Errorf("the node's files are not what they were:\n%s", d)
	}
	usr, err := s.listUsr(ctx)
	if err == nil && usr != s.usr {
		err = errors.New("/usr is not what it was")
	}
	return err
}

// files describes every file, folder and link of /etc and /opt: kind, mode,
// owner, link target and content. Times are part of it for files, not for
// folders: in those, files of others came and went.
func (s *Story) files(ctx context.Context) (map[string]string, error) {
	out, err := s.sh(ctx, `find /etc /opt \( -type d -printf '%p\t%y %m %U:%G\n' \) -o -printf '%p\t%y %m %U:%G %s %T@ %l\n'
find /etc /opt -type f -exec md5sum {} + | sed 's/^\([0-9a-f]*\)  \(.*\)/\2\tcontent \1/'`)
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	for line := range strings.Lines(out) {
		name, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		files[name] += what + " "
	}
	return files, nil
}

// listUsr is a digest of names, kinds, modes, sizes and times below /usr.
func (s *Story) listUsr(ctx context.Context) (string, error) {
	return s.sh(ctx, `find /usr -printf '%p %y %m %U:%G %s %T@ %l\n' | sort | md5sum`)
}

// difference lists what is in only one of two trees or not the same in both.
func difference(before, after map[string]string) string {
	var b strings.Builder
	for name, what := range before {
		if now, ok := after[name]; !ok {
			fmt.Fprintf(&b, "gone: %s %s\n", name, what)
		} else if now != what {
			fmt.Fprintf(&b, "was: %s %s\nis:  %s %s\n", name, what, name, now)
		}
	}
	for name, what := range after {
		if _, ok := before[name]; !ok {
			fmt.Fprintf(&b, "new: %s %s\n", name, what)
		}
	}
	return b.String()
}

func (s *Story) startPod(ctx context.Context) error {
	pod := node.WriterPod("writer", &node.RBD{
		Monitors: []string{s.cluster.MonV1()},
		Pool:     "rbd",
		Image:    disk,
		User:     "kube",
		Keyring:  "/etc/ceph/keyring",
		FSType:   "ext4",
	})
	return s.node.Put(ctx, manifest, pod, 0o644)
}

// stopPod takes the pod away and returns when its disk is nowhere in use.
func (s *Story) stopPod(ctx context.Context) error {
	if _, err := s.sh(ctx, "rm "+manifest); err != nil {
		return err
	}
	start := time.Now()
	err := s.wait(ctx, 2*time.Minute, "the disk unmounted and unmapped", func() (bool, error) {
		out, err := s.sh(ctx, "grep kubernetes.io~rbd /proc/mounts || :; ls /sys/bus/rbd/devices")
		return out == "", err
	})
	if err != nil {
		return err
	}
	s.Say("unmounted and unmapped %.1f s after the manifest went", time.Since(start).Seconds())
	return s.wait(ctx, 10*time.Second, "no watcher on the image", func() (bool, error) {
		r := s.cluster.Rbd("status", disk)
		return r.Stdout == "Watchers: none\n", nil
	})
}

// podWrites returns when the pod's program has written to its disk.
func (s *Story) podWrites(ctx context.Context, limit time.Duration) error {
	start := time.Now()
	err := s.wait(ctx, limit, "the pod's first line", func() (bool, error) {
		n, err := s.countLines(ctx)
		return n > s.lines, err
	})
	if err == nil {
		s.Say("the pod writes, %.1f s later", time.Since(start).Seconds())
	}
	return err
}

// podWritesMore is podWrites on a disk that has lines already.
func (s *Story) podWritesMore(ctx context.Context, limit time.Duration) error {
	if err := s.podWrites(ctx, limit); err != nil {
		return err
	}
	s.Say("the %d lines of before are there", s.lines)
	return nil
}

// countLines counts the lines on the pod's disk, 0 while that is not mounted.
func (s *Story) countLines(ctx context.Context) (int, error) {
	out, err := s.sh(ctx, `for d in /var/lib/kubelet/pods/*/volumes/kubernetes.io~rbd/data; do
	if mountpoint -q "$d"; then cat "$d/lines" 2>/dev/null || :; fi
done | wc -l`)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

// kubeletStarts counts how often systemd has started kubelet since the boot.
func (s *Story) kubeletStarts(ctx context.Context) (int, error) {
	out, err := s.sh(ctx, "journalctl -b -o cat --no-pager _PID=1 UNIT=kubelet.service | grep -c '^Started ' || :")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

// wait runs check until it says true, for at most limit.
func (s *Story) wait(ctx context.Context, limit time.Duration, what string, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		done, err := check()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			log, _ := s.sh(context.WithoutCancel(ctx), "journalctl -u kubelet -o cat --no-pager | grep -iE 'error|fail|rbd' | tail -n 25")
			return fmt.Errorf("no sign of %s within %s; kubelet says:\n%s", what, limit, log)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// sh runs a script in the node that has to succeed and returns its standard
// output without the last newline. The arguments are $1 and so on.
func (s *Story) sh(ctx context.Context, script string, args ...string) (string, error) {
	r, err := s.run(ctx, append([]string{"sh", "-euc", script, "sh"}, args...)...)
	if err != nil {
		return "", err
	}
	if r.Code != 0 {
		return r.Stdout, fmt.Errorf("%s: exit code %d: %s", script, r.Code, strings.TrimSpace(r.Stderr))
	}
	return strings.TrimSuffix(r.Stdout, "\n"), nil
}

func (s *Story) run(ctx context.Context, argv ...string) (node.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return s.node.Run(ctx, argv...)
}

// sayLines shows the first lines of what a program printed.
func (s *Story) sayLines(text string, most int) {
	n := 0
	for line := range strings.Lines(text) {
		if n++; n > most {
			s.Say("...")
			return
		}
		s.Say("%s", strings.TrimSuffix(line, "\n"))
	}
}
