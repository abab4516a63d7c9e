package krbd

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

// direct lets the launcher map by itself. There is no payload beside it, so that what it leaves to that is seen by its
// complaint. It comes after besideGenuine, whose files in /etc/ceph it needs.
func direct(t *testing.T, c *cluster.Cluster, n *node.Node) {
	build := exec.CommandContext(t.Context(), "make", "-s", "-C", "../..", "bin/shim")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	n.PutFile("/opt/direct/bin/rbd", "../../bin/shim")
	const rbd = "/opt/direct/bin/rbd"
	secret, err := c.Secret("client.kube")
	if err != nil {
		t.Fatal(err)
	}
	const gone = "rbd: nothing is installed at /opt/direct/rbd/current; run the installer again\n"

	if r := n.Run(rbd, "--id", "kube", "map", "disk"); r.Code != 127 || r.Stderr != gone {
		t.Errorf("without the setting: %+v", r)
	}
	n.Put("/etc/opt-rbd/launcher.conf", []byte("map = direct\n"), 0o644)
	defer n.Must("rm", "/etc/opt-rbd/launcher.conf")
	for _, line := range [][]string{
		{"map", "disk", "--id", "kube"},
		{"map", "disk", "--pool", "rbd", "--id", "kube", "-m", c.MonV1(), "--key=" + secret}, // kubelet's
		{"map", "rbd/ns/disk", "--id", "kube", "-o", "ms_mode=crc,noudev", "--read-only"},
	} {
		r := n.Run(append([]string{rbd}, line...)...)
		dev := strings.TrimSuffix(r.Stdout, "\n")
		if r.Code != 0 || r.Stderr != "" || !strings.HasPrefix(dev, "/dev/rbd") || r.Stdout != dev+"\n" {
			t.Errorf("%q: %+v", line, r)
			continue
		}
		shown := n.Must(rbd, "showmapped", "--format", "json")
		if !strings.Contains(shown, `"device":"`+dev+`"`) {
			t.Errorf("%q: not in %s", line, shown)
		}
		n.Must("dd", "if="+dev, "of=/dev/null", "bs=4096", "count=1", "status=none")
		n.Must("udevadm", "settle")
		n.Must(rbd, "unmap", dev)
	}
	// What the kernel refuses, or cannot be read here, is the payload's to say.
	for _, line := range [][]string{
		{"map", "missing", "--id", "kube"}, {"map", "disk", "--id", "nobody"}, {"map", "disk", "--id", "kube", "-o", "nosuch"}, {"map"}, {"map", "--help"},
	} {
		if r := n.Run(append([]string{rbd}, line...)...); r.Code != 127 || r.Stderr != gone || r.Stdout != "" {
			t.Errorf("%q: %+v", line, r)
		}
	}
	// Nobody reads the key while the kernel waits for a monitor that does not answer.
	out := n.Shell(`$1 map disk --id kube -m 10.0.2.77 --key="$2" -o mount_timeout=3 >/run/direct.out 2>&1 &
		sleep 1.5
		tr '\0' ' ' </proc/$!/cmdline
		wait $! || echo "exit code $?"`, rbd, secret)
	if strings.Contains(out, secret) || !strings.Contains(out, "map disk --id kube") || !strings.Contains(out, "exit code 127") {
		t.Errorf("the command line of a map that waits: %s", strings.ReplaceAll(out, secret, "KEY"))
	}
	if mapped := n.Must(rbd, "showmapped"); mapped != "" {
		t.Errorf("still mapped: %s", mapped)
	}
}
