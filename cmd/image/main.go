// Command image packs a container image from the root of a distribution, as a tar, and from what make built, and
// writes it as the archive that docker load, podman load and ctr images import take. It needs neither a registry nor a
// daemon. What it is given is what the image has: image/build decides on that.
//
// The same input gives the same bytes: every time in the image is SOURCE_DATE_EPOCH's.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// links are what of ours is on PATH, before the genuine tools in /usr/bin.
var links = map[string]string{
	"usr/local/bin/rbd":       "/opt-rbd/payload/usr/bin/rbd",
	"usr/local/bin/installer": "/opt-rbd/installer",
}

// labels that say the same of every image; the keys are the OCI image specification's annotations. The Containerfile
// has them too.
var labels = map[string]string{
	"org.opencontainers.image.title":       "ceph-common",
	"org.opencontainers.image.description": "The rbd command: opt-rbd first on PATH, Ceph's own beside it",
	"org.opencontainers.image.licenses":    "Apache-2.0",
	"org.opencontainers.image.source":      "https://github.com/opt-rbd/opt-rbd",
}

type options struct {
	root     string // tar of the base's root
	bin      string // folder with installer, shim and payload/
	arch     string
	tag      string
	base     string
	version  string
	revision string
	created  time.Time
	out      string
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", "", "the base: a `tar` of the root of a distribution with Ceph's tools")
	flag.StringVar(&o.bin, "bin", "bin", "`folder` with installer, shim and payload")
	flag.StringVar(&o.arch, "arch", "amd64", "CPU of the programs, as Go calls it")
	flag.StringVar(&o.tag, "tag", "ceph-common", "`name` of the image")
	flag.StringVar(&o.base, "base", "", "`name` of the base, for its label")
	flag.StringVar(&o.version, "version", "", "version of opt-rbd, for its label")
	flag.StringVar(&o.revision, "revision", "", "commit of opt-rbd, for its label")
	flag.StringVar(&o.out, "out", "bin/ceph-common.tar", "`file` to write")
	flag.Parse()
	digest, err := run(o, os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

// run packs the image and gives its digest: that of its manifest, as a registry would name it.
func run(o options, epoch string) (v1.Hash, error) {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: set it to the seconds since 1970 that all times in the image shall be", epoch)
	}
	o.created = time.Unix(seconds, 0).UTC()
	tag, err := name.NewTag(o.tag)
	if err != nil {
		return v1.Hash{}, err
	}
	img, err := pack(o)
	if err != nil {
		return v1.Hash{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return v1.Hash{}, err
	}
	return digest, write(o.out, tag, img)
}

// pack makes the image: the base as one layer, ours as another, so that a new release of ours is a small download.
func pack(o options) (v1.Image, error) {
	// Compressed once, not again for each of digest, size and content.
	base, err := tarball.LayerFromFile(o.root, tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.root, err)
	}
	content, err := ours(o)
	if err != nil {
		return nil, err
	}
	own, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: o.created}
	img, err := mutate.Append(empty.Image,
		mutate.Addendum{Layer: base, History: v1.History{Created: created, CreatedBy: "Debian packages", Comment: o.base}},
		mutate.Addendum{Layer: own, History: v1.History{Created: created, CreatedBy: "opt-rbd", Comment: o.version}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS, config.Created = o.arch, "linux", created
	config.Config = v1.Config{
		Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd:    []string{"rbd", "help"},
		Labels: maps.Clone(labels),
	}
	for key, value := range map[string]string{
		"created":   o.created.Format(time.RFC3339),
		"version":   o.version,
		"revision":  o.revision,
		"base.name": o.base,
	} {
		if value != "" {
			config.Config.Labels["org.opencontainers.image."+key] = value
		}
	}
	return mutate.ConfigFile(img, config)
}

// ours is the tar of what opt-rbd puts into an image.
func ours(o options) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) error {
		h.Size, h.ModTime, h.Format = int64(len(content)), o.created, tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	// WalkDir goes in the order of names. The folder may hold more than an image gets.
	err := fs.WalkDir(os.DirFS(o.bin), ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		top, _, _ := strings.Cut(at, "/")
		switch {
		case at == ".":
			return add(tar.Header{Typeflag: tar.TypeDir, Name: "opt-rbd/", Mode: 0o755}, nil)
		case top != "installer" && top != "shim" && top != "payload":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		file, to := filepath.Join(o.bin, at), path.Join("opt-rbd", at)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := int64(info.Mode().Perm()); {
		case d.IsDir():
			return add(tar.Header{Typeflag: tar.TypeDir, Name: to + "/", Mode: mode}, nil)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return add(tar.Header{Typeflag: tar.TypeSymlink, Name: to, Linkname: target, Mode: 0o777}, nil)
		default:
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			return add(tar.Header{Typeflag: tar.TypeReg, Name: to, Mode: mode}, content)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, need := range []string{"installer", "shim", "payload/payload.json", "payload/usr/bin/rbd"} {
		if _, err := os.Stat(filepath.Join(o.bin, need)); err != nil {
			return nil, fmt.Errorf("%w: run make build payload", err)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(links)) {
		if err := add(tar.Header{Typeflag: tar.TypeSymlink, Name: at, Linkname: links[at], Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// write puts the archive in place when it is whole.
func write(file string, tag name.Tag, img v1.Image) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(tarball.Write(tag, img, f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
