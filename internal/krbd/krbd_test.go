package krbd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// node unpacks the tree that was captured from a real node: testdata/README
// says how.
func node(t *testing.T) Host {
	t.Helper()
	root := t.TempDir()
	for line := range strings.Lines(string(capture(t, "node"))) {
		line = strings.TrimSuffix(line, "\n")
		path, target, isLink := strings.Cut(line, " -> ")
		var content string
		var err error
		if !isLink {
			var quoted string
			path, quoted, _ = strings.Cut(line, " = ")
			content, err = strconv.Unquote(quoted)
		}
		path = filepath.Join(root, path)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755))
		if isLink {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Host{Root: root}
}

func at(pool, namespace, image, snap string) spec.Spec {
	return spec.Spec{Pool: pool, Namespace: namespace, Image: image, Snap: snap}
}

func TestSecretCannotBePrinted(t *testing.T) {
	const key = "AQBSZVxnAAAAABAA0000000000000000000000=="
	s := NewSecret(" " + key + "\n")
	request := Request{Secret: s}
	js, err := json.Marshal(map[string]any{"s": s, "r": request})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(s, request, &s) + fmt.Sprintf("%v %+v %#v %s %q %x %d", s, request, request, s, s, s, s) + s.String() + s.GoString() + string(js)
	if strings.Contains(text, "AQB") || strings.Contains(text, "41514253") {
		t.Error(text)
	}
	if s.base64 != key || s.IsZero() || !NewSecret("\n").IsZero() {
		t.Error("NewSecret")
	}
}

func TestLine(t *testing.T) {
	var o MapOptions
	if err := o.Parse("queue_depth=8,noudev"); err != nil {
		t.Fatal(err)
	}
	req := Request{
		Spec: spec.Spec{Pool: "p", Namespace: "n", Image: "i", Snap: "s"},
		Monitors: []Monitor{
			{Addr: netip.MustParseAddrPort("10.0.0.1:3300"), Msgr2: true},
			{Addr: netip.MustParseAddrPort("10.0.0.1:6789")},
			{Addr: netip.MustParseAddrPort("[fd00::2]:6789")},
		},
		ID:      "kube",
		Options: o,
	}
	line := func(auth string) string {
		t.Helper()
		s, err := req.line(auth)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := line(",key=client.kube"), line(",key=client.kube")
	if got, want := strings.TrimSpace(first), "10.0.0.1:6789,[fd00::2]:6789 name=kube,key=client.kube,queue_depth=8,_pool_ns=n p i s"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if first == second {
		t.Error("two lines are the same: their devices could not be told apart")
	}

	req = Request{Spec: spec.Spec{Pool: "p", Image: "i"}, Monitors: req.Monitors, ID: "kube"}
	if err := req.Options.Parse("ms_mode=prefer-crc"); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(line("")), "10.0.0.1:3300 name=kube,ms_mode=prefer-crc p i -"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	req.Monitors = req.Monitors[1:]
	var e *Error
	if _, err := req.line(""); !errors.As(err, &e) || e.Errno != syscall.ENOENT || e.Text != textNoMonitor {
		t.Error(err)
	}
	for range 300 {
		req.Monitors = append(req.Monitors, Monitor{netip.MustParseAddrPort("10.0.0.1:3300"), true})
	}
	if _, err := req.line(""); !errors.Is(err, syscall.E2BIG) {
		t.Error(err)
	}
}

// A name with a space in it would have the kernel map another image.
func TestNamesThatTheKernelMisreads(t *testing.T) {
	for _, r := range []Request{
		{Spec: spec.Spec{Pool: "a b", Image: "i"}},
		{Spec: spec.Spec{Pool: "a", Image: "i\tj"}},
		{Spec: spec.Spec{Pool: "a", Image: "i", Snap: "s\n"}},
		{Spec: spec.Spec{Pool: "a", Image: "i", Snap: "-"}},
		{Spec: spec.Spec{Pool: "a", Namespace: "n,ro", Image: "i"}},
		{Spec: spec.Spec{Pool: "a", Image: "i"}, ID: "x,secret=y"},
		{Spec: spec.Spec{Pool: "a"}},
	} {
		if err := r.check(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := (Request{Spec: spec.Spec{Pool: "a,b", Namespace: "n", Image: "i:j", Snap: "@"}, ID: "u"}).check(); err != nil {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	got, err := node(t).List()
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{0, at("rbd", "", "disk", ""), 253, 0, "/dev/rbd0"},
		{1, at("rbd", "", "disk", "snap"), 253, 16, "/dev/rbd1"},
		{2, at("rbd", "ns", "disk", ""), 253, 32, "/dev/rbd2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := (Host{Root: t.TempDir()}).List(); len(got) != 0 || err != nil {
		t.Error("without the module:", got, err)
	}
}

func TestByNumber(t *testing.T) {
	h := node(t)
	for _, c := range []struct {
		major, minor uint32
		want         string
	}{
		{253, 0, "/dev/rbd0"},
		{253, 1, "/dev/rbd0"}, // /dev/rbd0p1
		{253, 32, "/dev/rbd2"},
	} {
		if d, err := h.byNumber(c.major, c.minor); err != nil || d.Path != c.want {
			t.Errorf("%d:%d: %+v, %v", c.major, c.minor, d, err)
		}
	}
	for _, n := range [][2]uint32{{254, 0}, {7, 0}} { // the node's own disk; nothing
		if d, err := h.byNumber(n[0], n[1]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %+v, %v", n, d, err)
		}
	}
}

func TestSupportedFeatures(t *testing.T) {
	if mask, err := node(t).SupportedFeatures(); err != nil || mask != 0x1bf {
		t.Errorf("%#x, %v", mask, err)
	}
	if _, err := (Host{Root: t.TempDir()}).SupportedFeatures(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// The tree that is written to is a plain one: what the kernel does with the
// lines is for the tests in the node.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	h := Host{Root: dir}
	if err := h.write("remove", "0"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	touch := func(name string) string {
		path := filepath.Join(dir, bus, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	written := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	old := touch("remove")
	if err := h.write("remove", "0 force"); err != nil || written(old) != "0 force" {
		t.Error(err, written(old))
	}
	single := touch("remove_single_major")
	if err := h.write("remove", "1"); err != nil || written(single) != "1" || written(old) != "0 force" {
		t.Error(err, written(single), written(old))
	}
}

func TestUnmapTexts(t *testing.T) {
	h := node(t)
	for _, c := range []struct {
		err  error
		want string
	}{
		{h.UnmapDevice(t.Context(), "/dev/null", UnmapOptions{}), "'/dev/null' is not a block device"},
		{h.UnmapDevice(t.Context(), "/dev/nothing-here", UnmapOptions{}), "'/dev/nothing-here' is not a block device"},
		{h.UnmapSpec(t.Context(), at("a", "b", "c", "d"), UnmapOptions{}), "a/b/c@d: not a mapped image or snapshot"},
		{h.UnmapSpec(t.Context(), at("rbd", "", "disk", "other"), UnmapOptions{}), "rbd/disk@other: not a mapped image or snapshot"},
	} {
		var e *Error
		if !errors.As(c.err, &e) || e.Text != c.want || e.Errno != syscall.EINVAL {
			t.Errorf("got %v, want %s", c.err, c.want)
		}
	}
}

// Two of them are what rbd 16.2.15 said in a node where supported_features was
// made to lack layering, or nothing.
func TestMismatch(t *testing.T) {
	for _, c := range []struct {
		image, supported uint64
		want             string
	}{
		{0x45, 0x1bf, `You can disable features unsupported by the kernel with "rbd feature disable ns/img journaling".`},
		{0x7d, 0x81, `You can disable features unsupported by the kernel with "rbd feature disable ns/img exclusive-lock object-map fast-diff deep-flatten journaling".`},
		{0x45, 0x1be, "This image cannot be mapped because the following immutable features are unsupported by the kernel: layering."},
		{0x45, 0xffff, `You can disable features unsupported by the kernel with "rbd feature disable ns/img".`},
		{0x45, 0, `Try disabling features unsupported by the kernel with "rbd feature disable".`},
	} {
		if got := Mismatch("ns/img", c.image, c.supported); got != "RBD image feature set mismatch. "+c.want {
			t.Errorf("%#x less %#x: %s", c.image, c.supported, got)
		}
	}
}
