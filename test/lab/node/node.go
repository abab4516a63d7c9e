// Package node runs a real node for tests: a virtual machine with Debian's
// cloud kernel, systemd and D-Bus on a read-only root, in which only /etc,
// /opt, /var, /root and /home can be written, and without any rbd command.
//
//	c := cluster.Start(t, cluster.Options{})
//	n := node.Start(t, node.Options{NetNS: c.NetNS()})  // ended by t.Cleanup; the console is logged if t failed
//	n.Must("modprobe", "rbd")                           // has to succeed; standard output
//	r := n.Run("/opt/bin/rbd", "map", "disk")           // Result{Stdout, Stderr, Code}
//	n.Shell(`echo "$1" >/etc/motd`, "hello")            // has to succeed; sh -eu, arguments as $1, $2 ...
//	n.VM.Run(ctx, argv...), n.VM.Exec(ctx, command)     // with a context, with streams
//	n.PutFile("/opt/bin/rbd", "bin/rbd"), n.PutDir("/opt/rbd", dir), n.Put("/etc/x", data, 0o600)
//	n.Get("/etc/x"), n.GetDir("/etc", dir)
//	n.Reboot(), n.PowerCycle()                          // the state of the writable folders is kept
//	n.For(t)                                            // the same node in a subtest
//
// With Options.Kubelet, containerd and kubelet run as services of the node,
// with pods from files:
//
//	n.PutPod("disk", node.WriterPod("disk", &node.RBD{...})), n.RemovePod("disk")
//	n.PodLog("disk"), n.Journal("kubelet"), n.WaitFor(time.Minute, "what", func() bool { ... })
//
// With Options.SELinux the kernel enforces a policy, and the folders are laid
// out as on Fedora CoreOS.
//
// Boot is Start for programs, and StartDetached is for a node that outlives
// the program, beside a named cluster: go run ./test/lab up.
//
// QEMU emulates the processor (TCG), so that it works on machines without
// nested virtualisation; a command costs several times what it does on the
// host. The guest reaches what is reached in the network namespace that
// Options names; nothing reaches the guest but the agent on its serial port.
// Its state lasts as long as the Node and no longer. It needs root and the
// packages that Start names when they are missing.
package node

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
)

// timeout bounds whatever a test does in the node and names no time for.
const timeout = 2 * time.Minute

// Node is a node of one test, which fails when the node does.
type Node struct {
	VM *VM
	t  testing.TB
}

// Start boots a node that ends with the test. If that has failed by then, the
// end of the console is logged.
func Start(t testing.TB, o Options) *Node {
	t.Helper()
	// What the image needs is built without a limit of time.
	vm, err := Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the node's console: %s", vm.Console())
		}
		vm.Kill()
	})
	return &Node{VM: vm, t: t}
}

// For is the same node in a subtest, which then fails in the place of the test
// that started it.
func (n *Node) For(t testing.TB) *Node {
	return &Node{VM: n.VM, t: t}
}

// Run runs a command, for at most two minutes. Only what keeps it from running
// fails the test; its exit code is the caller's.
func (n *Node) Run(argv ...string) Result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	r, err := n.VM.Run(ctx, argv...)
	if err != nil {
		n.t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return r
}

// Must runs a command that has to succeed and returns its standard output
// without the newline at the end.
func (n *Node) Must(argv ...string) string {
	n.t.Helper()
	return strings.TrimSuffix(n.output(argv...), "\n")
}

func (n *Node) output(argv ...string) string {
	n.t.Helper()
	r := n.Run(argv...)
	if r.Code != 0 {
		n.t.Fatalf("%s: exit code %d\nstdout: %s\nstderr: %s", strings.Join(argv, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Shell runs a script with sh -eu that has to succeed and returns its standard
// output without the newline at the end. The arguments are its $1, $2 and so
// on.
func (n *Node) Shell(script string, args ...string) string {
	n.t.Helper()
	return n.Must(append([]string{"sh", "-euc", script, "sh"}, args...)...)
}

// Reboot powers the node off cleanly and boots it again.
func (n *Node) Reboot() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	if err := n.VM.Reboot(ctx); err != nil {
		n.t.Fatal(err)
	}
}

// PowerCycle cuts the node's power and boots it again. What was not synced may
// be lost.
func (n *Node) PowerCycle() {
	n.t.Helper()
	n.VM.Kill()
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	if err := n.VM.Start(ctx); err != nil {
		n.t.Fatal(err)
	}
}

// Put writes a file of the node, whole or not at all, and makes the folders
// that it needs. It belongs to root.
func (n *Node) Put(name string, data []byte, mode fs.FileMode) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	if err := n.VM.Put(ctx, name, data, mode); err != nil {
		n.t.Fatal(err)
	}
}

// Put is Node.Put for callers that have no test.
func (vm *VM) Put(ctx context.Context, name string, data []byte, mode fs.FileMode) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	// A dot hides it from programs that watch the folder.
	temp := "." + path.Base(name) + ".put"
	err := w.WriteHeader(&tar.Header{Name: temp, Mode: int64(mode.Perm()), Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return vm.untar(ctx, &archive, path.Dir(name), `mv -fT "$1/$2" "$1/$3"`, temp, path.Base(name))
}

// PutFile copies a file of the host into the node, with its mode.
func (n *Node) PutFile(name, hostFile string) {
	n.t.Helper()
	info, err := os.Stat(hostFile)
	if err != nil {
		n.t.Fatal(err)
	}
	data, err := os.ReadFile(hostFile)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Put(name, data, info.Mode())
}

// PutDir copies what a folder of the host has, links and modes included, into
// a folder of the node, which is made if it is not there. All belongs to root.
func (n *Node) PutDir(name, hostDir string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	if err := n.VM.PutDir(ctx, name, hostDir); err != nil {
		n.t.Fatal(err)
	}
}

// PutDir is Node.PutDir for callers that have no test.
func (vm *VM) PutDir(ctx context.Context, name, hostDir string) error {
	r, w := io.Pipe()
	go func() {
		archive := tar.NewWriter(w)
		w.CloseWithError(errors.Join(archive.AddFS(os.DirFS(hostDir)), archive.Close()))
	}()
	defer r.Close()
	return vm.untar(ctx, r, name, ":")
}

// untar unpacks an archive in a folder and then runs a script, for which $1 is
// the folder.
func (vm *VM) untar(ctx context.Context, archive io.Reader, dir, then string, args ...string) error {
	var stderr strings.Builder
	code, err := vm.Exec(ctx, agent.Command{
		Argv:   append([]string{"sh", "-euc", `mkdir -p "$1"; tar -C "$1" --no-same-owner -xpf -; ` + then, "sh", dir}, args...),
		Stdin:  archive,
		Stderr: &stderr,
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, stderr.String())
	}
	if err != nil {
		return fmt.Errorf("write to %s of the node: %w", dir, err)
	}
	return nil
}

// Get returns the content of a file of the node.
func (n *Node) Get(name string) []byte {
	n.t.Helper()
	return []byte(n.output("cat", "--", name))
}

// GetDir copies what a folder of the node has into one of the host, which must
// be there: files, folders and links with their modes, but nothing else.
func (n *Node) GetDir(name, hostDir string) {
	n.t.Helper()
	archive := tar.NewReader(strings.NewReader(n.output("tar", "-C", name, "-cf", "-", ".")))
	root, err := os.OpenRoot(hostDir)
	if err != nil {
		n.t.Fatal(err)
	}
	defer root.Close()
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			err = extract(root, h, archive)
		}
		if err != nil {
			n.t.Fatalf("copy %s of the node: %v", name, err)
		}
	}
}

func extract(root *os.Root, h *tar.Header, content io.Reader) error {
	name, mode := filepath.Clean(h.Name), h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return root.Chmod(name, mode)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(filepath.Clean(h.Linkname), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(mode), f.Close())
	}
	return nil // sockets, devices
}

// WaitFor runs check every half second until it is true and fails the test when it
// is not within the given time.
func (n *Node) WaitFor(limit time.Duration, what string, check func() bool) {
	n.t.Helper()
	for end := time.Now().Add(limit); !check(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
