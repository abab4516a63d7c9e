// Package launch tests the launcher as a node has it: bin/shim, installed as DIR/bin/rbd, with real payloads beside it
// in DIR/rbd. What it does is compared with the same command run without it. Nothing here changes the machine: what
// breaks /etc or looks at mounts is done in mount namespaces of the tests' own.
package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

var (
	// tools has a payload whose rbd is bash: it can look at its own process and needs no other program. native is
	// the same program without the launcher.
	tools  installation
	native string
	// genuine has a payload of Ceph's own rbd, which loads the most and reads the most of the host's settings.
	genuine installation
)

const genuineRBD = "/usr/bin/rbd"

// An installation is the folder that stands for /opt.
type installation string

func (i installation) rbd() string { return string(i) + "/bin/rbd" }

// payload is the folder of the version in use.
func (i installation) payload(t testing.TB) string {
	dir, err := filepath.EvalSymlinks(string(i) + "/rbd/current")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == enter {
		fmt.Fprintln(os.Stderr, enterHost(os.Args[2:]))
		os.Exit(200)
	}
	os.Exit(func() int {
		// Not t.TempDir: ordinary users have to get in.
		dir, err := os.MkdirTemp("", "launch")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func prepare(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("the tests of the launcher need root: it makes mount namespaces")
	}
	for _, program := range []string{genuineRBD, "/sbin/modprobe", "/usr/bin/setpriv", "/usr/bin/gcc", "/usr/lib/ssl/openssl.cnf"} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("%w: apt-get install --no-install-recommends -y ceph-common kmod util-linux gcc libc6-dev openssl", err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("make", "-s", "-C", "../..", "bin/shim").CombinedOutput(); err != nil {
		return fmt.Errorf("make bin/shim: %w: %s", err, out)
	}
	native = dir + "/native/rbd"
	if err := copyFile("/bin/bash", native); err != nil {
		return err
	}
	var err error
	if tools, err = install(dir+"/tools", native); err != nil {
		return err
	}
	genuine, err = install(dir+"/genuine", genuineRBD)
	return err
}

// install makes an installation as the installer does.
func install(dir string, programs ...string) (installation, error) {
	version := dir + "/rbd/versions/new"
	if _, err := payload.Build(payload.Options{Root: "/", Programs: programs, Dir: version}); err != nil {
		return "", err
	}
	return installation(dir), installShim(dir)
}

// installShim makes what of an installation is not the payload.
func installShim(dir string) error {
	if err := os.MkdirAll(dir+"/rbd", 0o755); err != nil {
		return err
	}
	if err := os.Symlink("versions/new", dir+"/rbd/current"); err != nil {
		return err
	}
	return copyFile("../../bin/shim", dir+"/bin/rbd")
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// result is how a command ended.
type result struct {
	code           int // -1 when a signal ended it
	signal         syscall.Signal
	stdout, stderr string
}

// run runs a command to its end.
func run(t testing.TB, cmd *exec.Cmd) result { t.Helper(); return end(t, cmd, cmd.Run) }

// end is run with the start of the command left to the caller.
func end(t testing.TB, cmd *exec.Cmd, start func() error) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	err := start()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	r := result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		r.signal = status.Signal()
	}
	return r
}

// command is bounded in time, so that a hang fails one test only.
func command(t testing.TB, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

// A host is one as it may be: where a command runs after a script of bash has changed /etc or mounts, in a
// mount namespace of its own. $T of the script is a fresh folder.
type host struct {
	script string
	uid    int      // whom the command runs as
	env    []string // added to the command's environment, not to the script's
}

// enter is the argument that makes this test binary the process in which host.command starts. It does not load
// anything once the script has run.
const enter = "enter"

// command gives the command line that does it.
func (h host) command(t testing.TB, argv ...string) []string {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := []string{"/usr/bin/unshare", "--mount", exe, enter, "T=" + scratch(t) + "\n" + h.script, strconv.Itoa(h.uid), strconv.Itoa(len(h.env))}
	return append(append(line, h.env...), argv...)
}

func (h host) run(t testing.TB, argv ...string) result {
	t.Helper()
	line := h.command(t, argv...)
	return run(t, command(t, line[0], line[1:]...))
}

func enterHost(args []string) error {
	if out, err := exec.Command("/bin/bash", "-euc", args[0]).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	uid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	env, argv := args[3:3+n], args[3+n:]
	if uid != 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
			return err
		}
	}
	return syscall.Exec(argv[0], argv, append(os.Environ(), env...))
}

// scratch is a folder that ordinary users can enter.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("", "launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
