package krbd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

// besideGenuine runs the same lines by the genuine rbd and by ours, in one
// node: what they say, their exit codes and what the kernel is left with have
// to be the same.
func besideGenuine(t *testing.T, c *cluster.Cluster, n *node.Node) {
	ours := filepath.Join(t.TempDir(), "ours")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "pacific", "-o", ours, "github.com/opt-rbd/opt-rbd/cmd/rbd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	dir := filepath.Join(t.TempDir(), "payload")
	if _, err := payload.Build(payload.Options{Root: "/", Programs: []string{"/usr/bin/rbd", ours}, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	n.PutDir("/opt/krbd", dir)
	n.PutFile("/etc/ceph/ceph.conf", c.Conf())
	n.PutFile(c.Keyring("client.kube"), c.Keyring("client.kube"))
	folders, err := os.ReadFile(filepath.Join(dir, "usr/lib/opt-rbd/library-path"))
	if err != nil {
		t.Fatal(err)
	}
	libraries := "/opt/krbd/" + strings.ReplaceAll(strings.TrimSpace(string(folders)), "\n", ":/opt/krbd/")
	ld := n.Shell("set -- /opt/krbd/usr/lib64/ld-linux*; echo $1")
	n.Must("modprobe", "rbd") // the genuine one's failure to load it is not in question

	// Each line costs seconds under emulation: every one of them shows several
	// things.
	lines := [][]string{
		{"map", "rbd/ns/journaled"},
		{"map", "missing"},
		{"map", "disk@missing"},
		{"map", "disk", "-o", "alloc_size=65536,rw,ip=10.0.2.15"},
		{"map", "disk", "--read-only", "-o", "noudev,ms_mode=crc,rxbounce"},
		{"showmapped"},
		{"device", "list", "--format", "json"},
		{"unmap", "disk", "-o", "force"},
		{"unmap", "/dev/rbd1", "-o", "noudev"},
		{"unmap", "disk"},
	}
	hint := regexp.MustCompile(`(?m)^hint: .*\n`)
	// The mark at the end of our lines is all that may differ.
	space := regexp.MustCompile(`(?m)[ \t\v\f]+$`)
	all := func(program string) (answers []string) {
		for _, line := range lines {
			r := n.Run(append([]string{ld, "--library-path", libraries, "/opt/krbd/usr/bin/" + program, "--id", "kube"}, line...)...)
			kernel := n.Shell("cat /sys/bus/rbd/devices/*/config_info 2>/dev/null || true")
			answers = append(answers, fmt.Sprintf("%v\nstdout: %s\nstderr: %s\ncode: %d\nin the kernel: %s",
				line, r.Stdout, hint.ReplaceAllString(r.Stderr, ""), r.Code, space.ReplaceAllString(kernel, "")))
		}
		return answers
	}
	genuine := all("rbd")
	if !strings.Contains(genuine[len(genuine)-1], "not a mapped image") {
		t.Fatalf("the genuine rbd did not get to the end: %s", strings.Join(genuine, "\n"))
	}
	if diff := cmp.Diff(genuine, all("ours")); diff != "" {
		t.Errorf("genuine -, ours +:\n%s", diff)
	}
}
