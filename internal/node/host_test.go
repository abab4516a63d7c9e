package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ostree makes a bare node one of the kind of Fedora CoreOS, as far as files go.
func ostree(t *testing.T, root string) {
	t.Helper()
	put(t, root, "usr/lib/os-release", "NAME=\"Fedora Linux\"\nID=fedora\nVARIANT_ID=coreos\nPRETTY_NAME=\"Fedora CoreOS 40\"\n", 0o644)
	for _, dir := range []string{"var/opt", "var/usrlocal/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"opt": "var/opt", "usr/local": "../var/usrlocal", "etc/os-release": "../usr/lib/os-release"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChoosePrefix(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(root string) error
		want    string
	}{
		"nothing":           {func(string) error { return nil }, "/opt"},
		"folders":           {func(root string) error { return os.MkdirAll(filepath.Join(root, "opt/bin"), 0o755) }, "/opt"},
		"ostree":            {func(root string) error { ostree(t, root); return nil }, "/usr/local"},
		"link to elsewhere": {func(root string) error { return os.Symlink("mnt/opt", filepath.Join(root, "opt")) }, "/opt"},
		"opt alone": {func(root string) error {
			ostree(t, root)
			return os.Remove(filepath.Join(root, "usr/local"))
		}, "/opt"},
		"installed in /opt before": {func(root string) error {
			ostree(t, root)
			put(t, root, "var/opt/rbd/installed.json", "{}", 0o600)
			return nil
		}, "/opt"},
	} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			if err := c.prepare(root); err != nil {
				t.Fatal(err)
			}
			tree, err := openTree(root)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.root.Close()
			if got, err := choosePrefix(tree); got != c.want || err != nil {
				t.Errorf("%s, %v, not %s", got, err, c.want)
			}
		})
	}
}

// TestOwnPrefix: an installation is found wherever it is, and there is one.
func TestOwnPrefix(t *testing.T) {
	src := source(t, "one")
	open := func(t *testing.T, root, prefix string, do func(n *Node) error) error {
		t.Helper()
		o := options(root, src, nil)
		o.Prefix = prefix
		n, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		return do(n)
	}
	install := func(n *Node) error { return n.Install(t.Context()) }
	uninstall := func(n *Node) error { return n.Uninstall(t.Context()) }
	for name, change := range map[string]func(root string) error{
		"as it was":      func(string) error { return nil },
		"without a unit": func(root string) error { return os.Remove(filepath.Join(root, shutdownFile)) },
		"without units":  func(root string) error { return os.RemoveAll(filepath.Join(root, unitFolder)) },
		"a rule of the vendor": func(root string) error {
			put(t, root, udevFile, `KERNEL=="rbd[0-9]*", PROGRAM="/usr/bin/ceph-rbdnamer %k"`+"\n", 0o644)
			return nil
		},
		"with a lost record": func(root string) error { return os.Remove(filepath.Join(root, "srv/x/rbd/installed.json")) },
	} {
		t.Run(name, func(t *testing.T) {
			root := bare(t)
			if err := errors.Join(open(t, root, "/srv/x", install), change(root)); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, root)
			for _, again := range []func(n *Node) error{install, func(n *Node) error {
				_, err := n.Plan(t.Context(), new(strings.Builder))
				return err
			}} {
				want := "cannot install in /opt beside the installation in /srv/x: uninstall that first"
				if err := open(t, root, "/opt", again); err == nil || err.Error() != want {
					t.Errorf("a second one: %v", err)
				}
			}
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Errorf("the second one changed:\n%s", diff)
			}
			if err := open(t, root, "", install); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, "opt")); err == nil {
				t.Error("there is a second one")
			}
			err := open(t, root, "", func(n *Node) error {
				if st, err := n.Status(t.Context()); err != nil || !st.OK || st.Prefix != "/srv/x" {
					t.Errorf("status: %+v, %v", st, err)
				}
				return n.Uninstall(t.Context())
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, "srv/x/rbd")); err == nil {
				t.Error("uninstall left it")
			}
			// And now it may be elsewhere.
			if err := open(t, root, "/opt", install); err != nil {
				t.Error(err)
			}
		})
	}

	// Cut off in the payload, in both directions.
	t.Run("cut off", func(t *testing.T) {
		root := bare(t)
		before := snapshot(t, root)
		full := func(do func(n *Node) error) func(n *Node) error {
			return func(n *Node) error {
				n.tree.around = func(c change, do func() error) error {
					if strings.Contains(c.name, "/versions/") {
						return syscall.ENOSPC
					}
					return do()
				}
				return do(n)
			}
		}
		if err := open(t, root, "/srv/x", full(install)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := open(t, root, "", install); err != nil {
			t.Fatal(err)
		}
		if err := open(t, root, "", full(uninstall)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := open(t, root, "", uninstall); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Errorf("after uninstall:\n%s", diff)
		}
	})
}

// On a system by ostree all goes to /usr/local, and systemd's PATH has its bin
// already.
func TestOstree(t *testing.T) {
	root, src := bare(t), source(t, "one")
	ostree(t, root)
	before := snapshot(t, root)
	o := options(root, src, nil)
	o.Prefix = ""
	on := func(do func(*Node) error) {
		t.Helper()
		n, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := do(n); err != nil {
			t.Fatal(err)
		}
	}
	on(func(n *Node) error { return n.Install(t.Context()) })
	for name, want := range map[string]bool{
		"var/usrlocal/bin/rbd": true, "var/usrlocal/rbd/installed.json": true, "etc/modules-load.d/rbd.conf": true,
		"etc/systemd/system.conf.d": false, "var/opt/bin": false,
	} {
		if _, err := os.Lstat(filepath.Join(root, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	on(func(n *Node) error {
		var out strings.Builder
		pending, err := n.Plan(t.Context(), &out)
		if pending {
			t.Errorf("after the installation: %s", out.String())
		}
		return err
	})
	on(func(n *Node) error { return n.Uninstall(t.Context()) })
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Error(diff)
	}
}

// A node with an rbd of its own is left alone until somebody insists.
func TestOwnRbd(t *testing.T) {
	root, src := bare(t), source(t, "one")
	put(t, root, "usr/bin/rbd", "#!/bin/sh\n", 0o755)
	put(t, root, "etc/os-release", "# of the vendor\nPRETTY_NAME='Debian GNU/Linux 12 (bookworm)'\n", 0o644)
	before := snapshot(t, root)
	var said []string
	install := func(force bool) {
		t.Helper()
		said = nil
		o := options(root, src, func(format string, args ...any) { said = append(said, strings.TrimSpace(fmt.Sprintf(format, args...))) })
		o.Force = force
		n, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if pending, err := n.Plan(t.Context(), new(strings.Builder)); pending != force || err != nil {
			t.Errorf("plan, force %t: %t, %v", force, pending, err)
		}
		if err := n.Install(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	install(false)
	want := "Debian GNU/Linux 12 (bookworm) has its own /usr/bin/rbd, which services find: nothing to do; --force installs beside it"
	if len(said) == 0 || said[len(said)-1] != want {
		t.Errorf("said %q, not %q", said, want)
	}
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Error(diff)
	}
	install(true)
	if _, err := os.Stat(filepath.Join(root, "opt/bin/rbd")); err != nil {
		t.Error(err)
	}
	// Once it is there, it is looked after without being forced again.
	if err := os.Remove(filepath.Join(root, "opt/bin/rbd")); err != nil {
		t.Fatal(err)
	}
	mustAct(t, "install", root, src)
	if _, err := os.Stat(filepath.Join(root, "opt/bin/rbd")); err != nil {
		t.Error(err)
	}
	mustAct(t, "uninstall", root, src)
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Error(diff)
	}
}

// TestShell: the man page and the shells' files come when asked for, and go with the rest.
func TestShell(t *testing.T) {
	root, src := bare(t), source(t, "one")
	before := snapshot(t, root)
	o := options(root, src, nil)
	o.Shell = true
	n, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.Install(t.Context()), n.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"man/man8/rbd.8", "bash-completion/completions/rbd", "zsh/site-functions/_rbd", "fish/vendor_completions.d/rbd.fish"} {
		want, err := os.ReadFile(filepath.Join("../../share", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "opt/share", name)); err != nil || string(got) != string(want) {
			t.Errorf("%s: %v, or another content", name, err)
		}
	}
	mustAct(t, "uninstall", root, src)
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Error(diff)
	}
}
