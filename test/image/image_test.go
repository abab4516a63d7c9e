//go:build image

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

const archive = module + "bin/ceph-common.tar" // make image-test has made it

// TestReproducible builds the image once more: the same bytes, and so the same digest.
func TestReproducible(t *testing.T) {
	second := t.TempDir() + "/again.tar"
	cmd := exec.Command(module+"image/build", "trixie", second)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("cmp", archive, second).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// podman is a store of its own.
type podman struct {
	t   *testing.T
	env []string
	c   *cluster.Cluster
}

func newPodman(t *testing.T) *podman {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends -y podman", err)
	}
	dir := t.TempDir()
	conf := dir + "/storage.conf"
	text := "[storage]\ndriver = \"overlay\"\ngraphroot = \"" + dir + "/root\"\nrunroot = \"" + dir + "/run\"\n"
	engine := dir + "/containers.conf"
	for file, text := range map[string]string{
		conf:   text,
		engine: "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n", // no systemd is needed
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &podman{t: t, c: cluster.Start(t, cluster.Options{}), env: []string{"CONTAINERS_STORAGE_CONF=" + conf, "CONTAINERS_CONF=" + engine,
		"BUILDAH_ISOLATION=chroot"}} // a build needs no container runtime
	t.Cleanup(func() {
		// Its files are others' and read-only in part: by its own command.
		if out, err := p.command("podman", "system", "reset", "--force").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return p
}

// command is in the cluster's network.
func (p *podman) command(name string, args ...string) *cluster.Cmd {
	cmd := p.c.Command(context.Background(), name, args...)
	cmd.Env = append(cmd.Environ(), p.env...)
	return cmd
}

func (p *podman) output(name string, args ...string) string {
	p.t.Helper()
	var said bytes.Buffer
	cmd := p.command(name, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s %q: %v: %s%s", name, args, err, out, said.Bytes())
	}
	return string(out)
}

// run is a container of image, as people write it, with the cluster's folder where its configuration says.
func (p *podman) run(image string, args ...string) string {
	p.t.Helper()
	dir := filepath.Dir(p.c.Conf())
	return p.output("podman", append([]string{"run", "--rm", "--net=host", "--pull=never", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
		"-v", dir + ":" + dir + ":ro", "-e", "CEPH_CONF=" + p.c.Conf()}, append(strings.Fields(image), args...)...)...)
}

// TestRun loads the image and uses it, and builds it on a base that has Ceph already, as upstream's has.
func TestRun(t *testing.T) {
	p := newPodman(t)
	p.output("rbd", "create", "disk", "--size", "1G")
	p.output("podman", "load", "--input", archive)

	for image, why := range map[string]string{
		"ceph-common":                           "as root",
		"--user=1000:1000 ceph-common":          "as anybody who may read the key",
		"--cap-drop=all ceph-common":            "without privileges",
		"--read-only ceph-common":               "writing nothing",
		"ceph-common /usr/bin/":                 "the genuine one",
		"ceph-common /opt-rbd/payload/usr/bin/": "the node's",
	} {
		prefix := ""
		if words := strings.Fields(image); strings.HasSuffix(image, "/") {
			image, prefix = words[0], words[1]
		}
		if strings.Contains(image, "--user") {
			if err := os.Chmod(p.c.Keyring("client.admin"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if out := p.run(image, prefix+"rbd", "ls"); out != "disk\n" {
			t.Errorf("%s: %q", why, out)
		}
	}
	for program, want := range map[string]string{"rbd": "/usr/local/bin/rbd", "installer": "/usr/local/bin/installer",
		"ceph": "/usr/bin/ceph", "rbd-nbd": "/usr/bin/rbd-nbd", "modprobe": "/usr/sbin/modprobe"} {
		if out := p.run("ceph-common", "sh", "-c", "command -v "+program); out != want+"\n" {
			t.Errorf("%s is %s, want %s", program, out, want)
		}
	}
	// Its own parts are all that the installer needs.
	if out := p.run("ceph-common", "installer", "install", "--root=/tmp", "--no-restart", "--help"); !strings.Contains(out, "--payload") {
		t.Errorf("installer: %s", out)
	}

	build := p.command("image/build")
	build.Dir = module
	build.Env = append(build.Env, "IMAGE_BASE=localhost/ceph-common", "BUILDER=podman")
	packed := p.describe("ceph-common")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	built := p.describe("ceph-common")
	packed.Labels["org.opencontainers.image.base.name"] = "localhost/ceph-common"
	delete(built.Labels, "io.buildah.version")
	if diff := cmp.Diff(packed, built); diff != "" {
		t.Errorf("packed (-) and built by the Containerfile (+):\n%s", diff)
	}
}

// description is of an image what both ways of making it have to agree on.
type description struct {
	Env, Cmd, Entrypoint []string
	User                 string
	Labels               map[string]string
	Files                string
}

func (p *podman) describe(image string) (d description) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.output("podman", "inspect", "--format", "{{json .Config}}", image)), &d); err != nil {
		p.t.Fatal(err)
	}
	// Of the commit, which may be another by now.
	for _, key := range []string{"created", "version", "revision"} {
		if key = "org.opencontainers.image." + key; d.Labels[key] != "" {
			d.Labels[key] = "set"
		}
	}
	if len(d.Entrypoint) == 0 {
		d.Entrypoint = nil
	}
	d.Files = p.run(image, "sh", "-c", "cd /; find opt-rbd usr/local/bin -printf '%M %U:%G %p %l\n' | sort; find opt-rbd usr/local/bin -type f -print0 | sort -z | xargs -0 sha256sum")
	return d
}
