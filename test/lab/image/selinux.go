package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// fileContexts says which label belongs to which path.
const fileContexts = "etc/selinux/default/contexts/files/file_contexts"

// SELinux returns an image like that of Build, with Debian's SELinux policy
// and labels on all files, and laid out as Fedora CoreOS is: /opt and
// /usr/local are links into /var.
//
// One rule of Debian's policy is taken out, since Fedora's does not have it:
// the one by which systemd may run any file whatever its label. With it a
// wrong label would do no harm, and a test of labels would prove nothing.
func SELinux(ctx context.Context, log io.Writer) (Image, error) {
	// Debian's main module, without that one line, in front of the packaged one.
	const hook = `chroot "$1" sh -euc '
		cd /tmp
		semodule --cil --extract base
		grep -v "(typeattributeset files_unconfined_type (init_t ))" base.cil >without.cil
		test $(wc -l <base.cil) = $(($(wc -l <without.cil) + 1))
		mv without.cil base.cil
		semodule --noreload --priority 400 --install base.cil
		rm base.cil'`
	return build(ctx, log, "selinux",
		slices.Concat(packages, []string{"policycoreutils", "selinux-policy-default", "selinux-utils"}),
		"--customize-hook="+hook)
}

// furnishSELinux turns the node's root into one that is laid out and labelled
// as Fedora CoreOS is.
func furnishSELinux(files, root string) error {
	if err := copyTree(files, root); err != nil {
		return err
	}
	for _, dir := range []string{"opt", "usr/local"} {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	return errors.Join(
		os.MkdirAll(filepath.Join(root, "var/usrlocal/bin"), 0o755),
		os.MkdirAll(filepath.Join(root, "var/opt"), 0o755),
		os.Symlink("var/opt", filepath.Join(root, "opt")),
		os.Symlink("../var/usrlocal", filepath.Join(root, "usr/local")),
	)
}
