package device

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

func read(t *testing.T, argv ...string) *args.Line {
	t.Helper()
	line, err := args.Read([]*args.Command{Unmap, List}, argv)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// host has what the kernel shows of two mapped images; internal/krbd has the
// tests with a whole tree of a real one.
func host(t *testing.T) krbd.Host {
	t.Helper()
	root := t.TempDir()
	for id, attrs := range []map[string]string{
		{"pool": "rbd", "name": "img", "current_snap": "-", "pool_ns": "", "major": "254", "minor": "0"},
		{"pool": "kube", "name": "a&b", "current_snap": "s1", "pool_ns": "team", "major": "254", "minor": "16"},
	} {
		dir := filepath.Join(root, "sys/bus/rbd/devices", fmt.Sprint(id))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, value := range attrs {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return krbd.Host{Root: root}
}

func TestList(t *testing.T) {
	for _, c := range []struct {
		host krbd.Host
		argv []string
		want string
	}{
		{krbd.Host{Root: t.TempDir()}, []string{"showmapped"}, ""},
		{krbd.Host{Root: t.TempDir()}, []string{"showmapped", "--format", "json"}, "[]\n"},
		{host(t), []string{"device", "ls", "-t", "krbd"}, "" +
			"id  pool  namespace  image  snap  device   \n" +
			"0   rbd              img    -     /dev/rbd0\n" +
			"1   kube  team       a&b    s1    /dev/rbd1\n"},
		{host(t), []string{"device", "list", "--format=json"}, `[{"id":"0","pool":"rbd","namespace":"","name":"img","snap":"-","device":"/dev/rbd0"},{"id":"1","pool":"kube","namespace":"team","name":"a&b","snap":"s1","device":"/dev/rbd1"}]` + "\n"},
	} {
		line := read(t, c.argv...)
		if !Local(line) {
			t.Errorf("%q is not local", c.argv)
		}
		var stdout bytes.Buffer
		if err := Run(t.Context(), line, IO{Stdout: &stdout, Host: c.host}); err != nil || stdout.String() != c.want {
			t.Errorf("%q: %v, got\n%swant\n%s", c.argv, err, &stdout, c.want)
		}
	}
}

// The texts and codes are those of rbd 16.2.15.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		argv         []string
		stderr, last string
		code         int
	}{
		{[]string{"showmapped", "--pretty-format"}, "", "--pretty-format only works when --format is json or xml", 22},
		{[]string{"showmapped", "-t", "ggate"}, "", "ggate is only supported on FreeBSD", 95},
		{[]string{"unmap", "-t", "ggate", "foo"}, "", "ggate is only supported on FreeBSD", 95},
		{[]string{"unmap"}, "", "unmap requires either image name or device path", 22},
		{[]string{"unmap", "-o", "foo"}, "", "unmap requires either image name or device path", 22},
		{[]string{"unmap", ""}, "", "unmap requires either image name or device path", 22},
		{[]string{"unmap", "a@"}, "", "invalid spec 'a@'", 22},
		{[]string{"unmap", "/dev/null"}, "rbd: '/dev/null' is not a block device\n", "unmap failed: (22) Invalid argument", 22},
		{[]string{"unmap", "/dev/null", "-o", "force", "-o", "bad"}, "rbd: unknown unmap option 'bad'\n", "couldn't parse unmap options", 22},
		{[]string{"unmap", "a/b/c@d"}, "rbd: a/b/c@d: not a mapped image or snapshot\n", "unmap failed: (22) Invalid argument", 22},
		{[]string{"unmap", "foo", "--pool", "rbd", "--image", "x"}, "rbd: rbd/x: not a mapped image or snapshot\n", "unmap failed: (22) Invalid argument", 22},
		{[]string{"unmap", "foo", "--pool", "rbd", "--snap", "s"}, "rbd: rbd/foo@s: not a mapped image or snapshot\n", "unmap failed: (22) Invalid argument", 22},
	} {
		line := read(t, c.argv...)
		if !Local(line) {
			t.Errorf("%q is not local", c.argv)
			continue
		}
		var stdout, stderr bytes.Buffer
		err := Run(t.Context(), line, IO{Stdout: &stdout, Stderr: &stderr, Host: krbd.Host{Root: t.TempDir()}})
		if err == nil || err.Error() != c.last || stderr.String() != c.stderr || int(errno.Code(err)) != c.code || stdout.Len() > 0 {
			t.Errorf("%q: %v (%d), stderr %q, stdout %q", c.argv, err, errno.Code(err), &stderr, &stdout)
		}
	}
}

func TestLocal(t *testing.T) {
	for _, argv := range [][]string{
		{"showmapped", "-t", "nbd"},
		{"unmap", "--device-type", "nbd", "/dev/nbd0"},
		{"help", "unmap"},
		{"unmap", "foo"}, // the cluster knows the default pool
		{"unmap", "--image", "foo@s"},
	} {
		if Local(read(t, argv...)) {
			t.Errorf("%q cannot be done without a cluster or another program", argv)
		}
	}
}

func TestDefaultPool(t *testing.T) {
	var stderr bytes.Buffer
	std := IO{Stderr: &stderr, Host: krbd.Host{Root: t.TempDir()}}
	err := RunUnmap(t.Context(), read(t, "unmap", "foo"), std, func() (string, error) { return "kube", nil })
	if err == nil || stderr.String() != "rbd: kube/foo: not a mapped image or snapshot\n" {
		t.Error(err, &stderr)
	}
	no := errors.New("no cluster")
	if err := RunUnmap(t.Context(), read(t, "unmap", "foo"), std, func() (string, error) { return "", no }); !errors.Is(err, no) {
		t.Error(err)
	}
}
