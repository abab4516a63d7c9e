// Package installer tests bin/installer on a real node: systemd, D-Bus, a
// read-only /usr, the kernel's module. A small service stands for kubelet; the
// real one is in test/node. What happens to files alone is tested in
// internal/node, which needs no node.
package installer

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

// tools is where an admin unpacked the installer.
const tools = "/root/opt-rbd"

// A testNode is a node with the installer on it.
type testNode struct {
	*node.Node
	t    *testing.T
	bare string // its files before the first installation, see files
	path string // the PATH of its services then
}

// in is the node for a subtest: its failures are the subtest's.
func (n testNode) in(t *testing.T) testNode {
	return testNode{n.For(t), t, n.bare, n.path}
}

// installer runs it and returns all that it said.
func (n testNode) installer(code int, args ...string) string {
	n.t.Helper()
	return n.installs(code, args[0], append([]string{tools + "/installer"}, args...))
}

// installs runs one of the installer's commands in whatever way.
func (n testNode) installs(code int, command string, argv []string) string {
	n.t.Helper()
	began := time.Now()
	r := n.Run(argv...)
	n.t.Logf("%s: exit code %d after %.1f s\n%s%s", strings.Join(argv, " "), r.Code, time.Since(began).Seconds(), r.Stdout, r.Stderr)
	if r.Code != code {
		n.t.Fatalf("exit code %d, not %d", r.Code, code)
	}
	if code == 1 && command != "status" && strings.Count(r.Stderr, "\n") != 1 {
		n.t.Errorf("an error is one line, not %q", r.Stderr)
	}
	return r.Stdout + r.Stderr
}

// files is every file of the places that can be written, with its content.
// Times of folders are left out: they change when a name in them comes and
// goes. /etc/machine-id and the like are files as all others.
func (n testNode) files() string {
	n.t.Helper()
	return n.Shell(`
		find /etc /opt /var/opt /usr/local ! -type d -printf '%p %y %#m %U %G %l %T@\n' -o -printf '%p %y %#m %U %G\n' | sort
		find /etc /opt /var/opt -type f -exec sha256sum {} + | sort -k 2`)
}

func (n testNode) same(before, what string) {
	n.t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(n.files(), "\n")); diff != "" {
		n.t.Errorf("%s:\n%s", what, diff)
	}
}

func (n testNode) contains(text string, wants ...string) {
	n.t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			n.t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// servicePath is the PATH that a service gets which starts now.
func (n testNode) servicePath() string {
	n.t.Helper()
	return n.Must("systemd-run", "--quiet", "--pipe", "--wait", "printenv", "PATH")
}

// kubelet makes the service that stands for kubelet, in /run, which is none
// of the installer's places. Each of its starts adds a line to a file.
func (n testNode) kubelet(service ...string) {
	n.t.Helper()
	n.Put("/run/systemd/system/kubelet.service", []byte(fmt.Sprintf(`[Service]
ExecStart=/bin/sh -c 'test ! -e /run/kubelet.broken || { sleep 0.2; exit 3; }; echo started >>/run/kubelet.starts; exec sleep infinity'
%s
`, strings.Join(service, "\n"))), 0o644)
	n.Shell("rm -f /run/kubelet.starts; systemctl daemon-reload; systemctl restart kubelet.service; until test -e /run/kubelet.starts; do sleep 0.1; done")
}

func (n testNode) noKubelet() {
	n.t.Helper()
	n.Shell("systemctl stop kubelet.service; systemctl reset-failed kubelet.service || true; rm -rf /run/systemd/system/kubelet.service* /run/kubelet.*; systemctl daemon-reload")
}

func (n testNode) pid() string {
	n.t.Helper()
	return n.Must("systemctl", "show", "--value", "--property=MainPID", "kubelet.service")
}

func (n testNode) starts() int {
	n.t.Helper()
	return strings.Count(string(n.Get("/run/kubelet.starts")), "started")
}

func (n testNode) unloadModule() {
	n.t.Helper()
	n.Shell("! test -e /sys/bus/rbd || modprobe -r rbd")
}

// tinyPayload is a payload with a static program as rbd. What a payload holds
// is not the installer's affair, and the real one takes seconds to copy in an
// emulated machine.
func tinyPayload(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "usr/bin/rbd"), "./testdata/rbd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	manifest, err := payload.Scan(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	manifest.Machine = elf.EM_X86_64.String()
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, payload.ManifestName), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInstaller(t *testing.T) {
	if out, err := exec.Command("make", "-s", "-C", "../..", "bin/shim", "bin/installer").CombinedOutput(); err != nil {
		t.Fatalf("make bin/shim bin/installer: %v: %s", err, out)
	}
	content := tinyPayload(t)
	n := testNode{Node: node.Start(t, node.Options{}), t: t}
	n.PutFile(tools+"/installer", "../../bin/installer")
	n.PutFile(tools+"/shim", "../../bin/shim")
	n.PutDir(tools+"/payload", content)

	n.bare = n.files()
	n.path = n.servicePath()
	if r := n.Run("sh", "-c", "command -v rbd /opt/bin/rbd; test ! -e /sys/bus/rbd"); r.Code != 0 || r.Stdout != "" {
		t.Fatalf("a node with rbd: %v", r)
	}

	// One boot for all: each leaves the node as it found it, so the first that
	// fails is the last that runs.
	for _, theme := range []struct {
		name string
		run  func(testNode)
	}{
		{"without kubelet", withoutKubelet},
		{"with kubelet", withKubelet},
		{"kubelet with a PATH of its own", kubeletWithPath},
		{"kubelet does not come back", kubeletStaysDown},
		{"kubelet whose program sets PATH", kubeletSetsPath},
		{"ended by SIGTERM", endedBySignal},
		{"PATH beaten for all services", pathBeaten},
		{"module that must not be loaded", moduleRefused},
		{"kubelet by another name", otherUnits},
		{"noexec", noexec},
		{"files only", filesOnly},
		{"other user", otherUser},
		{"without a bus", withoutBus},
		{"inside a pod", insidePod},
		{"power cut", powerCut},
	} {
		if !t.Run(theme.name, func(t *testing.T) { theme.run(n.in(t)) }) {
			return
		}
	}
}
