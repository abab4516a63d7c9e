// Package runtime tests the launcher with a container runtime in its configuration: docker and podman run the payload
// as an image, against a real cluster. The daemon and the stores are the test's own.
package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

const install = "apt-get install --no-install-recommends -y docker.io containerd runc podman catatonit"

// setup is a cluster and what runs beside it.
type setup struct {
	*cluster.Cluster
	dir string
	env []string
}

func TestRuntime(t *testing.T) {
	for _, program := range []string{"docker", "dockerd", "docker-init", "containerd", "runc", "podman", "/usr/libexec/podman/catatonit"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: %s", err, install)
		}
	}
	dir := t.TempDir()
	s := &setup{Cluster: cluster.Start(t, cluster.Options{}), dir: dir}
	// The daemons' sockets have to stay short.
	state, err := os.MkdirTemp("/run", "rt")
	must(t, err)
	t.Cleanup(func() {
		// What conmon starts when a container ends (podman container cleanup) outlives the container: it writes to the
		// store after that is gone from the list.
		eventually(t, func() error {
			for file, b := range processes(t) {
				if bytes.Contains(b, []byte(state)) {
					return fmt.Errorf("%s still names %s", file, state)
				}
			}
			return nil
		})
		// dockerd leaves the network of --network=host mounted.
		_ = syscall.Unmount(state+"/exec/netns/default", syscall.MNT_DETACH)
		_ = syscall.Unmount(state+"/run", syscall.MNT_DETACH)
		must(t, os.RemoveAll(state))
	})

	// The image: the payload and the links of a merged /usr.
	root := filepath.Join(dir, "root")
	must(t, os.MkdirAll(root+"/etc", 0o755))
	for name, to := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"} {
		must(t, os.Symlink(to, root+"/"+name))
	}
	archive := filepath.Join(dir, "image.tar")
	shell(t, "go build -tags pacific -o "+dir+"/built/rbd ../../cmd/rbd")
	_, err = payload.Build(payload.Options{Root: "/", Programs: []string{dir + "/built/rbd"}, Dir: root + "/payload"})
	must(t, err)
	shell(t, "mv "+root+"/payload/usr "+root+"/ && rm -r "+root+"/payload && tar -C "+root+" -cf "+archive+" .")
	// What the launcher is configured by lies over /etc for it alone.
	shell(t, "cp -a /etc "+dir+"/etc && mkdir -p "+dir+"/etc/opt-rbd "+dir+"/opt/bin && make -s -C ../.. bin/shim && cp ../../bin/shim "+dir+"/opt/bin/rbd")

	s.startDocker(t, state)
	storage, engine := filepath.Join(state, "storage.conf"), filepath.Join(state, "containers.conf")
	must(t, os.WriteFile(storage, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\nrunroot = %q\ngraphroot = %q\n", state+"/run", dir+"/podman"), 0o600))
	// podman's own limits are higher than a machine without CAP_SYS_RESOURCE lets it set.
	must(t, os.WriteFile(engine, []byte(`
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
`), 0o600))
	s.env = append(s.env, "CONTAINERS_STORAGE_CONF="+storage, "CONTAINERS_CONF="+engine)

	for _, name := range []string{"docker", "podman"} {
		t.Run(name, func(t *testing.T) { s.testRuntime(t, name, archive) })
	}
}

func (s *setup) testRuntime(t *testing.T, name, archive string) {
	out, err := s.client(t, name, "import", archive, "ceph-common").Output()
	must(t, err)
	image := strings.TrimSpace(string(out))
	conf := s.dir + "/etc/opt-rbd/launcher.conf"
	configure := func(image string) {
		must(t, os.WriteFile(conf, []byte("runtime = "+name+"\nimage = "+image+"\n"), 0o644))
	}
	configure(image)
	work := t.TempDir()
	key, err := s.Secret("client.admin")
	must(t, err)
	must(t, os.WriteFile(work+"/empty.conf", nil, 0o600))
	byKey := []string{"-c", "empty.conf", "-m", s.MonV1(), "--id", "admin"}

	expect := func(t *testing.T, r result, code int, stdout, stderr string) {
		t.Helper()
		if r.code != code || r.stdout != stdout || !strings.Contains(r.stderr, stderr) {
			t.Fatalf("exit code %d, stdout %q, stderr %q; want %d, %q, %q in stderr", r.code, r.stdout, r.stderr, code, stdout, stderr)
		}
	}
	disk := "disk-" + name
	content := bytes.Repeat([]byte("opt-rbd "), 1<<16)

	t.Run("stdin and files", func(t *testing.T) {
		expect(t, s.rbd(t, work, content, "import", "--no-progress", "-", disk), 0, "", "")
		folder := work + "/a, \"b\""
		must(t, os.Mkdir(folder, 0o755))
		expect(t, s.rbd(t, work, nil, "export", "--no-progress", disk, folder+"/copy"), 0, "", "")
		got, err := os.ReadFile(folder + "/copy")
		must(t, err)
		if !bytes.Equal(got, content) {
			t.Fatalf("%d bytes came back of %d", len(got), len(content))
		}
		expect(t, s.rbd(t, folder, nil, "import", "--no-progress", "copy", disk+"2"), 0, "", "")
		r := s.rbd(t, work, nil, "export", "--no-progress", disk+"2", "-")
		if r.code != 0 || r.stdout != string(content) {
			t.Fatalf("exit code %d, %d bytes: %s", r.code, len(r.stdout), r.stderr)
		}
	})
	t.Run("exit codes", func(t *testing.T) {
		expect(t, s.rbd(t, work, nil, "info", "nosuch"), 2, "", "No such file or directory")
		if r := s.rbd(t, work, nil, "nosuch"); r.code != 1 || !strings.Contains(r.stderr, "unknown option 'nosuch'") {
			t.Errorf("%+v", r)
		}
		absent := "sha256:" + strings.Repeat("0", 64)
		configure(absent)
		r := s.rbd(t, work, nil, "ls")
		configure(image)
		expect(t, r, 125, "", "rbd: "+name+" does not have the image "+absent)
		if strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("more than one line: %q", r.stderr)
		}
	})
	t.Run("key", func(t *testing.T) {
		for _, how := range []string{"argument", "CEPH_ARGS"} {
			line, env := byKey, "CEPH_ARGS="
			if how == "argument" {
				line = append(line[:len(line):len(line)], "--key", key)
			} else {
				env += "--key " + key
			}
			cmd := s.launcher(work, append(line, "import", "--no-progress", "-", disk+how)...)
			cmd.Env = append(cmd.Env, env)
			container := s.begin(t, name, cmd)
			shown, err := s.client(t, name, "inspect", container).Output()
			must(t, err)
			for file, b := range processes(t) {
				if bytes.Contains(b, []byte(key)) {
					t.Errorf("%s: the key is in %s", how, file)
				}
			}
			if bytes.Contains(shown, []byte(key)) {
				t.Errorf("%s: the key is in what %s inspect says", how, name)
			}
			files, _ := filepath.Glob("/run/opt-rbd/" + container + "/key")
			if len(files) != 1 {
				t.Fatalf("%s: no key file for %s", how, container)
			}
			for _, path := range []string{files[0], filepath.Dir(files[0])} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			// SIGKILL of the client leaves neither a key nor a container, though rbd does not end by itself: it would at
			// the end of its stdin.
			stopped := 0
			for file, b := range processes(t) {
				if bytes.HasPrefix(b, []byte("rbd\x00")) && bytes.Contains(b, []byte("\x00"+disk+how+"\x00")) {
					var pid int
					_, err := fmt.Sscanf(file, "/proc/%d/cmdline", &pid)
					must(t, err)
					must(t, syscall.Kill(pid, syscall.SIGSTOP))
					stopped++
				}
			}
			if stopped != 1 {
				t.Fatalf("%d processes of rbd in the container", stopped)
			}
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			eventually(t, func() error {
				if _, err := os.Stat(filepath.Dir(files[0])); !errors.Is(err, os.ErrNotExist) {
					return errors.New("the key is still there")
				}
				return s.noContainer(t, name)
			})
		}
	})
	t.Run("SIGTERM", func(t *testing.T) {
		cmd := s.launcher(work, "import", "--no-progress", "-", disk+"3")
		s.begin(t, name, cmd)
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait()
		// rbd has no handler: it dies, and the runtime says so as a shell does.
		if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
			t.Errorf("exit code %d", code)
		}
		eventually(t, func() error { return s.noContainer(t, name) })
	})
	t.Run("map", func(t *testing.T) {
		// The machine's kernel need not have rbd: how far it gets is seen by what it says.
		_, module := os.Stat("/sys/bus/rbd")
		r := s.rbd(t, work, nil, "map", disk)
		if module != nil && (r.code == 0 || strings.Contains(r.stderr, "Read-only") || strings.Contains(r.stderr, "not permitted")) {
			t.Errorf("%+v", r)
		}
		t.Logf("%+v", r)
		if r.code == 0 {
			expect(t, s.rbd(t, work, nil, "unmap", strings.TrimSpace(r.stdout)), 0, "", "")
		}
	})
}

// launcher is the launcher with the cluster's network and the test's /etc.
func (s *setup) launcher(dir string, args ...string) *cluster.Cmd {
	script := `mount --bind "$1" /etc; shift; exec "$@"`
	cmd := s.Command(context.Background(), "unshare", append([]string{"--mount", "sh", "-euc", script, "sh", s.dir + "/etc", s.dir + "/opt/bin/rbd"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

type result struct {
	code           int
	stdout, stderr string
}

func (s *setup) rbd(t *testing.T, dir string, stdin []byte, args ...string) result {
	t.Helper()
	cmd := s.launcher(dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// begin starts a command that waits for its stdin, and gives the name of its container once that runs.
func (s *setup) begin(t *testing.T, name string, cmd *cluster.Cmd) (container string) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	must(t, err)
	t.Cleanup(func() { stdin.Close() })
	must(t, cmd.Start())
	eventually(t, func() error {
		out, err := s.client(t, name, "ps", "--format", "{{.Names}}").Output()
		container = strings.TrimSpace(string(out))
		if err == nil && container == "" {
			err = errors.New("no container runs")
		}
		return err
	})
	return container
}

func (s *setup) noContainer(t *testing.T, name string) error {
	out, err := s.client(t, name, "ps", "--all", "--quiet").Output()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("a container is left: %s", out)
	}
	return err
}

func (s *setup) client(t *testing.T, name string, args ...string) *cluster.Cmd {
	cmd := s.Command(t.Context(), name, args...)
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// processes gives the command line and the environment of all processes but this one, by file.
func processes(t *testing.T) map[string][]byte {
	files := map[string][]byte{}
	for _, kind := range []string{"cmdline", "environ"} {
		list, err := filepath.Glob("/proc/[0-9]*/" + kind)
		must(t, err)
		for _, file := range list {
			if b, err := os.ReadFile(file); err == nil { // some end meanwhile
				files[file] = b
			}
		}
	}
	return files
}

func (s *setup) startDocker(t *testing.T, state string) {
	start := func(socket, name string, args ...string) {
		log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_WRONLY, 0o600)
		must(t, err)
		defer log.Close()
		d := s.Command(context.Background(), name, args...)
		d.Stdout, d.Stderr = log, log
		d.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		must(t, d.Start())
		t.Cleanup(func() {
			_ = d.Process.Signal(syscall.SIGTERM)
			timer := time.AfterFunc(20*time.Second, func() { _ = d.Process.Kill() })
			_ = d.Wait()
			timer.Stop()
		})
		eventually(t, func() error { _, err := os.Stat(socket); return err })
	}
	config := state + "/daemon.json"
	must(t, os.WriteFile(config, []byte("{}\n"), 0o600))
	sock, ctd := state+"/docker.sock", state+"/ctd.sock"
	start(ctd, "containerd", "--address", ctd, "--root", s.dir+"/ctd", "--state", state+"/ctd")
	start(sock, "dockerd", "--config-file", config, "--data-root", s.dir+"/docker", "--exec-root", state+"/exec", "-p", state+"/pid",
		"-H", "unix://"+sock, "--containerd", ctd, "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
	s.env = append(s.env, "DOCKER_HOST=unix://"+sock)
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-euc", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
