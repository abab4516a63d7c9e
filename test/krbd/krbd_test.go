// Package krbd runs the tests of internal/krbd that need a real kernel and a
// real cluster: they are compiled with the tag guest, put into one node and
// run there one by one, as subtests of the one test here. They stand in
// internal/krbd/guest_test.go. Then the genuine rbd and ours do the same in it.
package krbd

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

var capture = flag.Bool("capture", false, "renew internal/krbd/testdata from the node")

// rule gives the image "disk" a link after a while, so that a map that did
// not wait for udev is seen to return without it.
const rule = `SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", SUBSYSTEMS=="rbd", ATTRS{name}=="disk", PROGRAM=="/usr/bin/sleep 0.3", SYMLINK+="krbd-test/$attr{pool_ns}disk"
`

func TestKernel(t *testing.T) {
	binary := compile(t)
	c := cluster.Start(t, cluster.Options{})
	n := node.Start(t, node.Options{NetNS: c.NetNS()})

	if _, err := c.AddUser("client.kube", "mon", "profile rbd", "osd", "profile rbd"); err != nil {
		t.Fatal(err)
	}
	key, err := c.Secret("client.kube")
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]string{"V1": c.MonV1(), "V2": c.MonV2(), "ID": "kube", "Key": key})
	if err != nil {
		t.Fatal(err)
	}
	n.Put("/run/krbd.json", config, 0o600)
	n.Put("/etc/udev/rules.d/99-krbd-test.rules", []byte(rule), 0o644)
	n.Must("udevadm", "control", "--reload") // it looks for new rules by itself every 3 s only
	n.PutFile("/opt/krbd.test", binary)
	makeImages(t, c)

	used := func(image string) (bytes int64) {
		t.Helper()
		var du struct {
			Images []struct {
				Used int64 `json:"used_size"`
			}
		}
		if err := json.Unmarshal([]byte(rbd(t, c, "du", "--format", "json", image)), &du); err != nil || len(du.Images) != 1 {
			t.Fatalf("rbd du: %+v, %v", du, err)
		}
		return du.Images[0].Used
	}

	for _, name := range guestTests(t) {
		t.Run(strings.TrimPrefix(name, "Test"), func(t *testing.T) {
			start := time.Now()
			r := n.Run("env", "TMPDIR=/run", "KRBD_GUEST=/run/krbd.json", "KRBD_CAPTURE=/run/krbd-capture", "/opt/krbd.test", "-test.v", "-test.run", "^"+name+"$", "-test.timeout", "100s")
			if r.Code != 0 || !strings.Contains(r.Stdout, "--- PASS: "+name) {
				t.Errorf("in the node: exit code %d\n%s%s\n%s", r.Code, r.Stdout, r.Stderr, n.Shell("dmesg | tail -20"))
				return
			}
			t.Logf("%v: %s", time.Since(start).Round(time.Millisecond), r.Stdout)
			switch name {
			case "TestDiscardFill":
				if got := used("thin"); got < 8<<20 {
					t.Errorf("8 MiB were written, and the cluster holds %d bytes", got)
				}
			case "TestCapture":
				if *capture {
					n.GetDir("/run/krbd-capture", "../../internal/krbd/testdata")
				}
			case "TestDiscard":
				if got := used("thin"); got != 0 {
					t.Errorf("all was discarded, and the cluster holds %d bytes", got)
				}
			}
		})
	}
	t.Run("BesideGenuine", func(t *testing.T) { besideGenuine(t, c, n) })
	t.Run("Direct", func(t *testing.T) { direct(t, c, n) })
}

// compile builds the tests for the node.
func compile(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "krbd.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "guest", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/opt-rbd/opt-rbd/internal/krbd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return out
}

// guestTests are the tests of the node, in the order in which they stand.
func guestTests(t *testing.T) (names []string) {
	t.Helper()
	source, err := os.ReadFile("../../internal/krbd/guest_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	if len(names) < 10 {
		t.Fatalf("found only %v", names)
	}
	return names
}

func rbd(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	r := c.Rbd(args...)
	if r.Code != 0 {
		t.Fatalf("rbd %s: %d %s", strings.Join(args, " "), r.Code, r.Stderr)
	}
	return r.Stdout
}

func makeImages(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	create := func(args ...string) { t.Helper(); rbd(t, c, append([]string{"create", "--size", "64M"}, args...)...) }
	rbd(t, c, "namespace", "create", "rbd/ns")
	create("disk")
	rbd(t, c, "snap", "create", "disk@snap", "--no-progress")
	create("rbd/ns/disk")
	create("plain", "--image-feature", "layering")
	create("striped", "--stripe-unit", "64K", "--stripe-count", "2")
	create("journaled", "--image-feature", "layering,exclusive-lock,journaling")
	create("rbd/ns/journaled", "--image-feature", "layering,exclusive-lock,journaling")
	create("thin")
	for i := range 30 {
		create(fmt.Sprintf("many%d", i))
	}
}
