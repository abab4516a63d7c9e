package image

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Ceph returns a folder with the /usr of a Debian suite that has Ceph's
// daemons and tools of that suite: "trixie" has 18.2, "sid" has 20.2. It is
// unpacked, not configured: for programs that are run with that /usr, not for
// a system that boots.
func Ceph(ctx context.Context, suite string, log io.Writer) (string, error) {
	if err := needTools(); err != nil {
		return "", err
	}
	args := []string{
		"--quiet", "--mode=root", "--variant=extract",
		"--include=" + strings.Join([]string{"ceph-common", "ceph-mgr", "ceph-mon", "ceph-osd", "coreutils", "iproute2", "rbd-nbd", "util-linux"}, ","),
		"--aptopt=Apt::Install-Recommends false", "--aptopt=Acquire::Languages none",
		// A mirror may be some weeks old, and sid's lists are good for one.
		"--aptopt=Acquire::Check-Valid-Until false",
	}
	for _, dir := range []string{"doc", "info", "locale", "man"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	args = append(args, suite)
	dir, err := cached(ctx, "ceph-"+suite, newKey(args...), func(dir string) error {
		fmt.Fprintf(log, "lab: downloading and unpacking the Ceph of Debian's %s, some minutes\n", suite)
		return run(ctx, "", "mmdebstrap", append(args, filepath.Join(dir, "root"))...)
	})
	return filepath.Join(dir, "root"), err
}
