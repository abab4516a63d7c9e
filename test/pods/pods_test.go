// Package pods tests what a cluster runs: the pod of deploy/ that installs rbd on the node it runs on, an
// application's pod with a Ceph disk after it, and the way of that disk to a second node when the first one dies.
// Nodes, kubelets, container runtime and Ceph are real. There is no API server: each kubelet reads from a file the pod
// that a controller would make.
package pods

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

const (
	disk      = "disk"  // the application's image
	spare     = "spare" // one without exclusive lock, for which nobody waits
	installer = "opt-rbd"
	app       = "app"
)

// TestPods is one story, since each node takes half a minute to be there: each part needs the ones before it.
func TestPods(t *testing.T) {
	image := containerImage(t)
	manifest := installerPod(t)
	// The watcher of a dead node is to stay for as long as the test needs, not for Ceph's 30 s.
	c := cluster.Start(t, cluster.Options{Config: []string{"osd_client_watch_timeout = 600"}})
	if _, err := c.AddUser("client.kube", "mon", "profile rbd", "osd", "profile rbd pool=rbd"); err != nil {
		t.Fatal(err)
	}
	if r := c.Rbd("create", disk, "--size", "64M"); r.Code != 0 {
		t.Fatalf("rbd create: %+v", r)
	}
	if r := c.Rbd("create", spare, "--size", "8M", "--image-feature", "layering"); r.Code != 0 {
		t.Fatalf("rbd create: %+v", r)
	}
	application := node.WriterPod(app, &node.RBD{
		Monitors: []string{c.MonV1()}, Pool: "rbd", Image: disk, User: "kube", Keyring: "/etc/ceph/keyring", FSType: "ext4",
	})
	boot := func(name string) *node.Node {
		n := node.Start(t, node.Options{Name: name, NetNS: c.NetNS(), Kubelet: true})
		n.PutFile("/etc/ceph/keyring", c.Keyring("client.kube"))
		n.Put("/etc/ceph/ceph.conf", []byte("[global]\nmon_host = "+c.MonV1()+"\n"), 0o644)
		n.PutFile("/root/image.tar", image)
		n.Shell("until systemctl is-active -q kubelet; do sleep 0.2; done; ctr -n k8s.io images import --snapshotter overlayfs /root/image.tar; rm /root/image.tar")
		return n
	}

	first := boot("node1")
	ok := t.Run("the installer's pod", func(t *testing.T) { installs(t, first.For(t), manifest) }) &&
		t.Run("an application's pod", func(t *testing.T) { runs(t, first.For(t), application) })
	if !ok {
		return
	}
	second := boot("node2")
	t.Run("the same on a second node", func(t *testing.T) { installs(t, second.For(t), manifest) })
	t.Run("the first node dies", func(t *testing.T) { moves(t, c, first.For(t), second.For(t), application) })
}

// containerImage is ours without a base below it: the installer is a static program. Its name is what the manifest
// asks for, and as the node has it, nobody asks a registry.
func containerImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// Two blocks of zeros are the end of an archive.
	if err := os.WriteFile(dir+"/empty.tar", make([]byte, 1024), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "image.tar")
	cmd := exec.Command("go", "run", "../../cmd/image", "--root", dir+"/empty.tar", "--bin", "../../bin", "--tag", "ceph-common", "--out", out)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, said)
	}
	return out
}

// installerPod is the pod of the manifest, in which kubelet's restarts are spread over seconds instead of minutes.
func installerPod(t *testing.T) []byte {
	t.Helper()
	cmd := exec.Command("go", "run", "-C", "../deploy", ".", "-pod", "flatcar/install")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pod, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, stderr.Bytes())
	}
	quick := bytes.Replace(pod, []byte(`"--restart-jitter=5m"`), []byte(`"--restart-jitter=2s"`), 1)
	if bytes.Equal(quick, pod) {
		t.Fatalf("no --restart-jitter=5m in %s", pod)
	}
	return quick
}

// installs gives the installer's pod to a node that has no rbd.
func installs(t *testing.T, n *node.Node, manifest []byte) {
	if r := n.Run("sh", "-c", "command -v rbd || ls /opt/bin"); r.Stdout != "" {
		t.Fatalf("the node has rbd: %s", r.Stdout)
	}
	kubelet := n.Must("systemctl", "show", "kubelet", "-P", "InvocationID")
	began := time.Now()
	n.PutPod(installer, manifest)
	n.WaitFor(3*time.Minute, "the installer's pod is ready", func() bool { return podOf(n, installer).ready() })
	t.Logf("ready %.1f s after its manifest; it says\n%s", time.Since(began).Seconds(), n.PodLog(installer))

	if n.Must("systemctl", "show", "kubelet", "-P", "InvocationID") == kubelet {
		t.Error("kubelet was not restarted")
	}
	if starts := n.Shell("journalctl -b -o cat --no-pager _PID=1 UNIT=kubelet.service | grep -c '^Started '"); starts != "2" {
		t.Errorf("kubelet was started %s times, not at boot and once by the installer", starts)
	}
	// The pod outlived the kubelet that started it.
	pod := podOf(n, installer)
	kubeletStart, err := strconv.ParseFloat(n.Shell(`echo $(($(systemctl show kubelet -P ExecMainStartTimestampMonotonic) / 1000))`), 64)
	if err != nil {
		t.Fatal(err)
	}
	pid := n.Shell(`for p in /proc/[0-9]*; do if [ "$(readlink $p/exe)" = /opt-rbd/installer ] && [ "$(tr '\0' ' ' <$p/cmdline | cut -d' ' -f2)" = run ]; then basename $p; fi; done`)
	podStart, err := strconv.ParseFloat(n.Shell(`cut -d')' -f2 /proc/$1/stat | cut -d' ' -f21`, pid), 64)
	if err != nil {
		t.Fatal(err)
	}
	if podStart *= 10; podStart > kubeletStart || pod.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the installer started %.0f ms after the boot, kubelet %.0f ms; restarts of the pod: %d", podStart, kubeletStart, pod.Status.ContainerStatuses[0].RestartCount)
	}
	// What the manifest asks for is what the process has got.
	status := string(n.Get("/proc/" + pid + "/status"))
	for _, want := range []string{"CapInh:\t0", "CapPrm:\t0", "CapEff:\t0", "CapBnd:\t0", "CapAmb:\t0", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !regexp.MustCompile(`(?m)^` + strings.ReplaceAll(want, ":\t0", ":\t0+$")).MatchString(status) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	for _, ns := range []string{"pid", "net", "ipc", "mnt"} {
		if n.Must("readlink", "/proc/"+pid+"/ns/"+ns) == n.Must("readlink", "/proc/1/ns/"+ns) {
			t.Errorf("the pod is in the host's %s namespace", ns)
		}
	}
	if r := n.Run("sh", "-c", "touch /proc/$1/root/x", "sh", pid); r.Code == 0 {
		t.Error("the container's root can be written")
	}
	if out := n.Must("/opt/bin/rbd", "ls", "--id", "kube", "--keyring", "/etc/ceph/keyring"); out != disk+"\n"+spare {
		t.Errorf("rbd ls on the node says %q", out)
	}
	if strings.Contains(n.Shell("cat /proc/$1/environ /proc/$1/cmdline | tr '\\0' '\\n'", pid), "KUBERNETES_") {
		t.Error("the pod was told of the API server")
	}
}

// runs starts the application's pod and returns when it has written to its disk.
func runs(t *testing.T, n *node.Node, application []byte) {
	began := time.Now()
	n.PutPod(app, application)
	n.WaitFor(4*time.Minute, "the application's pod writes", func() bool {
		return strings.Contains(n.PodLog(app), "first line written")
	})
	t.Logf("it writes %.1f s after its manifest", time.Since(began).Seconds())
	if out := n.Must("/opt/bin/rbd", "showmapped"); !strings.Contains(out, disk) {
		t.Errorf("no mapped disk: %s", out)
	}
}

// moves kills a node without a shutdown and lets its application's pod start on another.
func moves(t *testing.T, c *cluster.Cluster, from, to *node.Node, application []byte) {
	as := []string{"--id", "kube", "--keyring", "/etc/ceph/keyring"}
	from.Must(slices.Concat([]string{"/opt/bin/rbd", "map", spare}, as)...)
	// From here on nothing that is read may be lost: it is on the disk.
	mounted := from.Shell("sed -n 's/.* \\(.*kubernetes.io~rbd\\/data\\) .*/\\1/p' /proc/mounts | head -n 1")
	from.Must("sync", "-f", mounted+"/lines")
	kept := from.Get(mounted + "/lines")
	kept = kept[:bytes.LastIndexByte(kept[:len(kept)-1], '\n')+1] // the last line was perhaps written after the sync
	from.VM.Kill()

	began := time.Now()
	to.PutPod(app, application)
	const used = "is still being used"
	to.WaitFor(4*time.Minute, "kubelet says that the disk is in use", func() bool {
		return strings.Contains(to.Journal("kubelet"), "rbd image rbd/"+disk+" "+used)
	})
	t.Logf("kubelet says that the disk %s after %.0f s", used, time.Since(began).Seconds())

	// Who holds it: the commands of docs/fencing.md.
	status := to.Must(slices.Concat([]string{"/opt/bin/rbd", "status", disk}, as)...)
	m := regexp.MustCompile(`watcher=(\S+:\d+/\d+) client\.\d+ cookie=\d+`).FindStringSubmatch(status)
	if m == nil {
		t.Fatalf("rbd status names no watcher: %s", status)
	}
	holder := m[1]
	r := to.Run(slices.Concat([]string{"/opt/bin/rbd", "rm", "--no-progress", spare}, as)...)
	if r.Code != 16 || !strings.Contains(r.Stderr, "hint: client.") || !strings.Contains(r.Stderr, "blocklist add "+holder) {
		t.Errorf("rbd rm of another disk of that node: exit code %d, no hint that names %s: %s", r.Code, holder, r.Stderr)
	}
	t.Logf("%s\n%s", status, r.Stderr)

	fenced := time.Now()
	if out, err := c.Command(t.Context(), "ceph", "osd", "blocklist", "add", holder).CombinedOutput(); err != nil {
		t.Fatalf("ceph osd blocklist add: %v: %s", err, out)
	}
	// Its watchers go at once, and with them all of its disks are free.
	for _, image := range []string{disk, spare} {
		if out := to.Must(slices.Concat([]string{"/opt/bin/rbd", "status", image}, as)...); strings.Contains(out, holder) {
			t.Errorf("%s after the fence: %s", image, out)
		}
	}
	to.Must(slices.Concat([]string{"/opt/bin/rbd", "rm", "--no-progress", spare}, as)...)
	to.WaitFor(4*time.Minute, "the application's pod writes on the second node", func() bool {
		return strings.Contains(to.PodLog(app), "first line written")
	})
	t.Logf("it writes on the second node %.0f s after the fence", time.Since(fenced).Seconds())
	mounted = to.Shell("sed -n 's/.* \\(.*kubernetes.io~rbd\\/data\\) .*/\\1/p' /proc/mounts | head -n 1")
	now := to.Get(mounted + "/lines")
	if !bytes.HasPrefix(now, kept) {
		t.Errorf("%d bytes of %x were on the disk, there are %d now, which do not begin with them:\n%s\nnow:\n%s", len(kept), sha256.Sum256(kept), len(now), kept, now)
	}
	t.Logf("all %d bytes are there, and %d more", len(kept), len(now)-len(kept))
}

// pod is of what kubelet says about one what is needed here.
type pod struct {
	Metadata struct{ Name string }
	Status   struct {
		ContainerStatuses []struct {
			Ready        bool
			RestartCount int
		}
	}
}

func (p pod) ready() bool {
	return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready
}

// podOf asks kubelet about a static pod, of which the zero value says that kubelet does not answer or know it.
func podOf(n *node.Node, name string) pod {
	r := n.Run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/10255 && printf 'GET /pods HTTP/1.0\r\n\r\n' >&3 && cat <&3`)
	_, body, _ := strings.Cut(r.Stdout, "\r\n\r\n")
	var list struct{ Items []pod }
	// Cut short when kubelet is restarted.
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return pod{}
	}
	host := n.Must("hostname")
	for _, p := range list.Items {
		if p.Metadata.Name == fmt.Sprintf("%s-%s", name, host) {
			return p
		}
	}
	return pod{}
}
