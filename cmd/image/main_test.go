package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// built makes what make build payload leaves, as small as it gets, and a base.
func built(t *testing.T) options {
	t.Helper()
	dir := t.TempDir()
	for at, mode := range map[string]os.FileMode{
		"installer": 0o755, "shim": 0o755, "payload/payload.json": 0o644, "payload/usr/bin/rbd": 0o755,
		"other": 0o644, "arm64/shim": 0o755,
	} {
		file := filepath.Join(dir, "bin", at)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(at), mode), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("bin/rbd", filepath.Join(dir, "bin/payload/usr/link")); err != nil {
		t.Fatal(err)
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755}), w.Close(),
		os.WriteFile(dir+"/root.tar", root.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	return options{root: dir + "/root.tar", bin: dir + "/bin", arch: "arm64", tag: "ceph-common", base: "debian:trixie",
		version: "v1", revision: "abc", out: dir + "/out.tar"}
}

func TestImage(t *testing.T) {
	o := built(t)
	digest, err := run(o, "1700000000")
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("ceph-common:latest")
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(o.out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Architecture != "arm64" || c.OS != "linux" || c.Created.Unix() != 1700000000 || c.Config.Entrypoint != nil || c.Config.User != "" {
		t.Errorf("configuration: %+v", c)
	}
	for key, want := range map[string]string{"title": "ceph-common", "licenses": "Apache-2.0", "created": "2023-11-14T22:13:20Z",
		"version": "v1", "revision": "abc", "base.name": "debian:trixie"} {
		if got := c.Config.Labels["org.opencontainers.image."+key]; got != want {
			t.Errorf("label %s: %q, want %q", key, got, want)
		}
	}

	layers, err := img.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatalf("%d layers: %v", len(layers), err)
	}
	content, err := layers[1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var got []string
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%04o %s %s", h.Mode, h.Name, h.Linkname)))
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s: owner %d:%d, time %s", h.Name, h.Uid, h.Gid, h.ModTime)
		}
	}
	want := []string{
		"0755 opt-rbd/",
		"0755 opt-rbd/installer",
		"0755 opt-rbd/payload/",
		"0644 opt-rbd/payload/payload.json",
		"0755 opt-rbd/payload/usr/",
		"0755 opt-rbd/payload/usr/bin/",
		"0755 opt-rbd/payload/usr/bin/rbd",
		"0777 opt-rbd/payload/usr/link bin/rbd",
		"0755 opt-rbd/shim",
		"0777 usr/local/bin/installer /opt-rbd/installer",
		"0777 usr/local/bin/rbd /opt-rbd/payload/usr/bin/rbd",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("our layer, want (-) and have (+):\n%s", diff)
	}

	// From files of another time: the same digest, the same bytes. At another time: another.
	first, err := os.ReadFile(o.out)
	if err != nil {
		t.Fatal(err)
	}
	other := built(t)
	again, err := run(other, "1700000000")
	if err != nil || again != digest {
		t.Errorf("built again: %v, %v, want %v", again, err, digest)
	}
	if second, err := os.ReadFile(other.out); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the archives differ: %v", err)
	}
	if later, err := run(other, "1700000001"); err != nil || later == digest {
		t.Errorf("a second later: %v, %v", later, err)
	}
}

// TestRefusals: without its parts there is no image, and nothing is left of the attempt.
func TestRefusals(t *testing.T) {
	for _, test := range []struct{ missing, epoch, want string }{
		{"bin/payload/usr/bin/rbd", "1", "run make build payload"},
		{"bin/shim", "1", "run make build payload"},
		{"root.tar", "1", "root.tar"},
		{"bin/other", "", "SOURCE_DATE_EPOCH"},
	} {
		o := built(t)
		dir := filepath.Dir(o.out)
		if err := os.Remove(filepath.Join(dir, test.missing)); err != nil {
			t.Fatal(err)
		}
		if _, err := run(o, test.epoch); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("without %s, at %q: %v, want %s", test.missing, test.epoch, err, test.want)
		}
		if left, err := filepath.Glob(o.out + "*"); err != nil || len(left) != 0 {
			t.Errorf("left: %v %v", left, err)
		}
	}
}
