package errno

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

func TestText(t *testing.T) {
	for code, want := range map[syscall.Errno]string{
		syscall.ENOENT:     "(2) No such file or directory",
		syscall.EDOM:       "(33) Numerical argument out of domain",
		syscall.EDQUOT:     "(122) Disk quota exceeded",
		syscall.EREMOTE:    "(66) Object is remote",
		syscall.ELIBSCN:    "(81) .lib section in a.out corrupted",
		syscall.ERFKILL:    "(132) Operation not possible due to RF-kill",
		syscall.Errno(524): "(524) Unknown error 524",
	} {
		if got := Text(code); got != want {
			t.Errorf("Text(%d) = %q, want %q", int(code), got, want)
		}
	}
}

type cephError int

func (e cephError) Error() string  { return "ceph" }
func (e cephError) ErrorCode() int { return int(e) }

func TestCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{Errorf(syscall.EBUSY, "in use"), syscall.EBUSY},
		{fmt.Errorf("open: %w", syscall.EACCES), syscall.EACCES},
		{cephError(-13), syscall.EACCES},
		{Wrap(cephError(-2), "listing images failed"), syscall.ENOENT},
		{errors.Join(Errorf(syscall.ENOENT, "a"), Errorf(syscall.EINVAL, "b")), syscall.ENOENT},
		{errors.New("no number"), syscall.EIO},
	} {
		if got := Code(c.err); got != c.want {
			t.Errorf("Code(%v) = %d, want %d", c.err, int(got), int(c.want))
		}
	}
	if err := Wrap(cephError(-2), "listing images failed"); err.Error() != "listing images failed: (2) No such file or directory" {
		t.Errorf("Wrap: %q", err)
	}
}
