package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

// nodeRounds is enough to see a difference: a map takes a second in the node.
const nodeRounds = 9

// node measures map and unmap in the node, where the kernel's rbd is. The
// genuine rbd runs there from a payload of its own, by its dynamic loader.
func (b *bench) node(dir string) error {
	genuine := filepath.Join(dir, "genuine")
	out, err := exec.CommandContext(b.ctx, "go", "run", "./cmd/payload", "--program", "/usr/bin/rbd", "--out", genuine).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the genuine rbd's payload: %w: %s", err, out)
	}
	vm, err := node.Boot(b.ctx, node.Options{NetNS: b.c.NetNS()})
	if err != nil {
		return err
	}
	defer vm.Kill()
	must := func(argv ...string) (string, error) {
		r, err := vm.Run(b.ctx, argv...)
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
		if err != nil {
			return "", fmt.Errorf("%s in the node: %w", strings.Join(argv, " "), err)
		}
		return r.Stdout, nil
	}

	const ours, theirs = "/root/opt-rbd", "/root/genuine"
	if err := vm.PutDir(b.ctx, ours+"/payload", "bin/payload"); err != nil {
		return err
	}
	if err := vm.PutDir(b.ctx, theirs, genuine); err != nil {
		return err
	}
	for _, name := range []string{"installer", "shim"} {
		data, err := os.ReadFile("bin/" + name)
		if err != nil {
			return err
		}
		if err := vm.Put(b.ctx, ours+"/"+name, data, 0o755); err != nil {
			return err
		}
	}
	conf := "[global]\nmon_host = " + b.c.MonV2() + "," + b.c.MonV1() + "\nkeyring = /etc/ceph/keyring\n"
	key, err := os.ReadFile(b.c.Keyring("client.admin"))
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"/etc/ceph/ceph.conf": []byte(conf), "/etc/ceph/keyring": key} {
		if err := vm.Put(b.ctx, name, data, 0o600); err != nil {
			return err
		}
	}
	if _, err := must(ours+"/installer", "install"); err != nil {
		return err
	}
	path, err := os.ReadFile(filepath.Join(genuine, "usr/lib/opt-rbd/library-path"))
	if err != nil {
		return err
	}
	var libraries []string
	for folder := range strings.Lines(string(path)) {
		libraries = append(libraries, theirs+"/"+strings.TrimSpace(folder))
	}
	loader, err := filepath.Glob(genuine + "/usr/lib*/ld-linux*")
	if err != nil || len(loader) == 0 {
		return fmt.Errorf("no dynamic loader in %s", genuine)
	}
	ways := []way{
		{"genuine", []string{theirs + strings.TrimPrefix(loader[0], genuine), "--inhibit-cache", "--library-path", strings.Join(libraries, ":"), theirs + "/usr/bin/rbd"}},
		{"opt-rbd", []string{"/opt/bin/rbd"}},
	}

	maps, unmaps := make([][]time.Duration, 2), make([][]time.Duration, 2)
	for round := range nodeRounds + 1 { // the first warms up
		for k := range ways {
			i := (k + round) % len(ways)
			m, err := b.inNode(vm, append(ways[i].argv, "map", "image00"))
			if err != nil {
				return err
			}
			// What udev starts for the new disk is not the unmap's to wait for.
			if _, err := must("udevadm", "settle"); err != nil {
				return err
			}
			u, err := b.inNode(vm, append(ways[i].argv, "unmap", "/dev/rbd0"))
			if err != nil {
				return err
			}
			if round > 0 {
				maps[i], unmaps[i] = append(maps[i], m), append(unmaps[i], u)
			}
		}
	}
	b.write("`rbd map` in the node (emulated CPU)", ways, maps)
	b.write("`rbd unmap` in the node", ways, unmaps)
	return b.direct(vm, must)
}

// direct measures what a map by the launcher itself adds to what the kernel needs: the same line written to it by a
// shell, which waits for udev as every map does.
func (b *bench) direct(vm *node.VM, must func(...string) (string, error)) error {
	if err := vm.Put(b.ctx, "/etc/opt-rbd/launcher.conf", []byte("map = direct\n"), 0o644); err != nil {
		return err
	}
	secret, err := b.c.Secret("client.admin")
	if err != nil {
		return err
	}
	line := b.c.MonV1() + " name=admin,secret=" + secret + " rbd image00 -"
	ways := []way{
		{"bare write", []string{"sh", "-c", `echo "$1" >/sys/bus/rbd/add_single_major && udevadm settle`, "sh", line}},
		{"opt-rbd", []string{"/opt/bin/rbd", "map", "image00"}},
	}
	times := make([][]time.Duration, len(ways))
	for round := range nodeRounds + 1 {
		for k := range ways {
			i := (k + round) % len(ways)
			d, err := b.inNode(vm, ways[i].argv)
			if err != nil {
				return err
			}
			if _, err := must("sh", "-c", "udevadm settle; /opt/bin/rbd unmap /dev/rbd0"); err != nil {
				return err
			}
			if round > 0 {
				times[i] = append(times[i], d)
			}
		}
	}
	b.write("`rbd map` in the node with `map = direct`", ways, times)
	return nil
}

func (b *bench) inNode(vm *node.VM, argv []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	start := time.Now()
	r, err := vm.Run(ctx, argv...)
	elapsed := time.Since(start)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return elapsed, nil
}
