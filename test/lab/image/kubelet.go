package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// KubeletVersion is the last one with the volume plugin that calls rbd. The
// module test/kubelet pins it.
const KubeletVersion = "v1.30.14"

// The container images that the kubelet's disk has: pause is the sandbox of
// every pod, and writer adds a line a second to a file in the folder that its
// argument names.
const (
	PauseImage  = "lab.local/pause:1"
	WriterImage = "lab.local/writer:1"
)

// KubeletDisk returns the erofs disk with kubelet and the archive of the
// container images of pods.
func KubeletDisk(ctx context.Context, log io.Writer) (string, error) {
	module, err := moduleRoot()
	if err != nil {
		return "", err
	}
	kubelet, err := Kubelet(ctx, log)
	if err != nil {
		return "", err
	}
	k := newKey("pods", kubelet, PauseImage, WriterImage, runtime.Version())
	if err := k.addFolders(module, "test/lab/image"); err != nil {
		return "", err
	}
	dir, err := cached(ctx, "pods", k, func(dir string) error {
		fmt.Fprintln(log, "lab: building the disk with kubelet and the container images")
		bin, root := filepath.Join(dir, "bin"), filepath.Join(dir, "root")
		if err := buildGuest(ctx, module, bin, "pause", "writer"); err != nil {
			return err
		}
		if err := os.Mkdir(root, 0o755); err != nil {
			return err
		}
		if err := os.Link(kubelet, filepath.Join(root, "kubelet")); err != nil {
			return err
		}
		if err := writeImages(filepath.Join(root, "images.tar"), map[string]string{
			PauseImage:  filepath.Join(bin, "pause"),
			WriterImage: filepath.Join(bin, "writer"),
		}); err != nil {
			return err
		}
		if err := makeErofs(ctx, root, filepath.Join(dir, "kubelet.erofs")); err != nil {
			return err
		}
		return errors.Join(os.RemoveAll(root), os.RemoveAll(bin))
	})
	return filepath.Join(dir, "kubelet.erofs"), err
}

// Kubelet returns the kubelet program, built from its sources the first time:
// seven minutes on two cores.
func Kubelet(ctx context.Context, log io.Writer) (string, error) {
	module, err := moduleRoot()
	if err != nil {
		return "", err
	}
	// What tells the version to its users is set by its Makefile otherwise.
	const version = "k8s.io/component-base/version."
	flags := "-s -w -X " + version + "gitVersion=" + KubeletVersion +
		" -X " + version + "gitMajor=1 -X " + version + "gitMinor=30"
	k := newKey("kubelet", flags, runtime.Version())
	if err := k.addFolders(module, "test/kubelet"); err != nil {
		return "", err
	}
	dir, err := cached(ctx, "kubelet", k, func(dir string) error {
		fmt.Fprintf(log, "lab: building kubelet %s from its sources, which takes minutes\n", KubeletVersion)
		stop := progress(log)
		defer stop()
		return goBuild(ctx, filepath.Join(module, "test/kubelet"),
			"build", "-trimpath", "-ldflags", flags, "-o", filepath.Join(dir, "kubelet"), "k8s.io/kubernetes/cmd/kubelet")
	})
	return filepath.Join(dir, "kubelet"), err
}

// progress tells log twice a minute that something still goes on.
func progress(log io.Writer) (stop func()) {
	done, began := make(chan struct{}), time.Now()
	go func() {
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(log, "lab: still building, %v so far\n", time.Since(began).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// writeImages writes a docker-archive, as docker save does, of images that
// consist of one static program each. It maps an image's name to the program,
// which becomes the entry point.
func writeImages(out string, programs map[string]string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	archive := tar.NewWriter(f)
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	for name, program := range programs {
		layer, err := layerOf(program)
		if err != nil {
			return err
		}
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH,
			"os":           "linux",
			"config":       map[string]any{"Entrypoint": []string{"/" + filepath.Base(program)}},
			"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		})
		if err != nil {
			return err
		}
		e := entry{Config: digest(config) + ".json", RepoTags: []string{name}, Layers: []string{digest(layer) + ".tar"}}
		manifest = append(manifest, e)
		if err := errors.Join(addFile(archive, e.Config, config, 0o644), addFile(archive, e.Layers[0], layer, 0o644)); err != nil {
			return err
		}
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return errors.Join(addFile(archive, "manifest.json", text, 0o644), archive.Close(), f.Close())
}

func layerOf(program string) ([]byte, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = errors.Join(addFile(w, filepath.Base(program), data, 0o755), w.Close())
	return layer.Bytes(), err
}

func addFile(w *tar.Writer, name string, data []byte, mode int64) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
