// Package upgrade switches versions of what is installed on a real node while many programs map and unmap images there
// through the launcher: none of them may notice. How the installer switches, and what becomes of a switch that is
// interrupted, is tested in internal/node and test/installer.
package upgrade

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

const (
	tools    = "/root/opt-rbd"
	loops    = 20
	switches = 10
)

// loop maps and unmaps an image until a file appears. What fails is a line in /run/failures, and each round one in
// /run/rounds.
const loop = `
image=$1
while test ! -e /run/stop; do
	version=$(readlink /opt/rbd/current)
	if ! dev=$(/opt/bin/rbd map "$image" 2>/run/error."$image"); then
		echo "map $image: exit code $?, $(cat /run/error."$image")" >>/run/failures
	elif ! test -b "$dev"; then
		echo "map $image says $dev" >>/run/failures
	elif ! /opt/bin/rbd unmap "$dev" 2>/run/error."$image"; then
		echo "unmap $dev: exit code $?, $(cat /run/error."$image")" >>/run/failures
	elif test -s /run/error."$image"; then
		echo "unmap $dev says $(cat /run/error."$image")" >>/run/failures
	fi
	echo "$image $version $(readlink /opt/rbd/current)" >>/run/rounds
done`

func TestSwitchUnderLoad(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	n := node.Start(t, node.Options{NetNS: c.NetNS(), Memory: 4096}) // 50 MB for each call
	n.PutFile("/etc/ceph/ceph.client.admin.keyring", c.Keyring("client.admin"))
	n.Put("/etc/ceph/ceph.conf", []byte("[global]\nmon_host = "+c.MonV1()+"\n"), 0o644)
	for _, name := range []string{"installer", "shim"} {
		n.PutFile(tools+"/"+name, "../../bin/"+name)
	}
	n.PutDir(tools+"/payload", "../../bin/payload")
	n.Must(tools+"/installer", "install", "--quiet")
	first := n.Must("readlink", "/opt/rbd/current")
	// The other version is the same with one more file, of which only its name is new to the node.
	n.Must("cp", "-a", tools+"/payload", tools+"/other")
	n.Put(tools+"/other/usr/share/other", []byte("version 2\n"), 0o644)
	n.Put(tools+"/other/"+payload.ManifestName, otherManifest(t), 0o644)
	n.Must(tools+"/installer", "install", "--quiet", "--payload", tools+"/other")
	second := n.Must("readlink", "/opt/rbd/current")
	if first == second {
		t.Fatalf("both versions are %s", first)
	}

	// Twenty processes leave the installer a twentieth of the emulated CPUs otherwise.
	n.Put("/run/systemd/system/loops.slice", []byte("[Slice]\nCPUWeight=30\n"), 0o644)
	for i := range loops {
		image := fmt.Sprintf("image%02d", i)
		if r := c.Rbd("create", image, "--size", "8M"); r.Code != 0 {
			t.Fatalf("rbd create: %+v", r)
		}
		n.Must("systemd-run", "--quiet", "--collect", "--slice=loops", "--unit=loop"+image, "sh", "-c", loop, "sh", image)
	}
	rounds := func() []string { return strings.Fields(n.Shell("sort /run/rounds 2>/dev/null || :")) }
	n.WaitFor(2*time.Minute, "every loop has been round once", func() bool {
		return n.Shell("cut -d' ' -f1 /run/rounds 2>/dev/null | sort -u | wc -l") == fmt.Sprint(loops)
	})
	before := len(rounds()) / 3
	began := time.Now()
	for i := range switches {
		start := time.Now()
		n.Must(tools+"/installer", "rollback", "--quiet")
		t.Logf("switch %d: %.1f s", i+1, time.Since(start).Seconds())
		want := []string{first, second}[i%2]
		if now := n.Must("readlink", "/opt/rbd/current"); now != want {
			t.Fatalf("after %d switches current is %s, not %s", i+1, now, want)
		}
	}
	took := time.Since(began)
	during := len(rounds())/3 - before
	n.Must("touch", "/run/stop")
	n.WaitFor(2*time.Minute, "the loops end", func() bool {
		return n.Run("sh", "-c", "systemctl list-units --no-legend 'loopimage*' | grep -q .").Code != 0
	})
	across := n.Shell("awk '$2 != $3' /run/rounds | wc -l")
	t.Logf("%d switches in %.1f s, %d maps and unmaps meanwhile, %s of them with one version at their start and the other at their end",
		switches, took.Seconds(), during, across)
	if failures := n.Shell("cat /run/failures 2>/dev/null || :"); failures != "" {
		t.Errorf("failures:\n%s", failures)
	}
	if during < switches {
		t.Errorf("only %d maps and unmaps while versions were switched", during)
	}
	if across == "0" {
		t.Error("no map had another version at its end than at its start")
	}
	if out := n.Must("/opt/bin/rbd", "showmapped"); out != "" {
		t.Errorf("still mapped: %s", out)
	}
	// Both are kept, the one for a rollback; nothing of the launchers is left over.
	if out := n.Shell("cd /opt/rbd; echo $(ls versions | wc -l) $(ls launchers | wc -l); ls -A | grep -v -e versions -e launchers -e current -e installed.json || :"); out != "2 1" {
		t.Errorf("left in /opt/rbd: %s", out)
	}
}

// otherManifest is the manifest of the payload with one more file.
func otherManifest(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../bin/payload")); err != nil {
		t.Fatalf("%v: run `make payload`", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/share/other"), []byte("version 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	old, err := payload.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, payload.ManifestName)); err != nil {
		t.Fatal(err)
	}
	m, err := payload.Scan(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	m.Machine = old.Machine
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
