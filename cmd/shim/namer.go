package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// name prints what udev's rule makes the links below /dev/rbd from: POOL[/NAMESPACE]/IMAGE[@SNAP] of the device that
// args name as the kernel does, rbd0 or rbd0p1, or by its node, without a newline. udev adds the partition. The genuine
// ceph-rbdnamer is a shell script, and a payload has no shell.
func name(sys string, args []string) int {
	if len(args) == 0 {
		stderr.print("usage: ceph-rbdnamer rbdN[pM]\n")
		return 1
	}
	device := args[0][strings.LastIndexByte(args[0], '/')+1:]
	id, _, _ := strings.Cut(strings.TrimPrefix(device, "rbd"), "p")
	read := func(attribute string) (string, error) {
		b, err := os.ReadFile(sys + "/devices/rbd/" + id + "/" + attribute)
		return strings.TrimRight(string(b), "\n"), err
	}
	pool, err := read("pool")
	namespace, errNamespace := read("pool_ns")
	if errors.Is(errNamespace, fs.ErrNotExist) {
		errNamespace = nil // a kernel before 4.19 has none
	}
	image, errImage := read("name")
	snap, errSnap := read("current_snap")
	if err := errors.Join(err, errNamespace, errImage, errSnap); err != nil {
		stderr.print("ceph-rbdnamer: " + args[0] + " is not a mapped image: " + strings.ReplaceAll(err.Error(), "\n", ", ") + "\n")
		return 1
	}
	if namespace != "" {
		pool += "/" + namespace
	}
	if snap != "-" {
		image += "@" + snap
	}
	stdout.print(pool + "/" + image)
	return 0
}
