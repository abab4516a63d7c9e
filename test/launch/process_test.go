package launch

import (
	"bufio"
	"debug/elf"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestStatic: the launcher must run on any host, start fast and be small.
func TestStatic(t *testing.T) {
	info, err := os.Stat(tools.rbd())
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 4<<20 {
		t.Errorf("the launcher has %d bytes, more than 4 MiB", info.Size())
	}
	f, err := elf.Open(tools.rbd())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the launcher is not static: it has %s", p.Type)
		}
	}
	// Each of these adds to every start, or to the size.
	out, err := exec.Command("go", "list", "-deps", "../../cmd/shim").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, heavy := range []string{"net", "net/http", "text/template", "encoding/json", "debug/elf", "github.com/urfave/cli/v2", "runtime/cgo"} {
		for _, dep := range deps {
			if dep == heavy {
				t.Errorf("the launcher links %s", heavy)
			}
		}
	}
}

// TestStartsNothingNeedless: what only the launcher's own answers need is not set up before the payload is entered.
func TestStartsNothingNeedless(t *testing.T) {
	cmd := command(t, tools.rbd(), "-c", "exit")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	r := run(t, cmd)
	if r.code != 0 || !strings.Contains(r.stderr, "init os ") {
		t.Fatalf("%+v", r)
	}
	for _, heavy := range []string{"regexp", "net/netip", "internal/krbd", "internal/device"} {
		if strings.Contains(r.stderr, heavy+" @") {
			t.Errorf("%s was initialised:\n%s", heavy, r.stderr)
		}
	}
}

// observed is what the kernel tells of a process from outside.
func observed(t *testing.T, pid int) map[string]string {
	proc := fmt.Sprintf("/proc/%d/", pid)
	read := func(name string) string {
		b, err := os.ReadFile(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	link := func(name string) string {
		target, err := os.Readlink(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	facts := map[string]string{
		"cmdline": read("cmdline"), "comm": read("comm"), "limits": read("limits"), "cgroup": read("cgroup"),
		"oom": read("oom_score_adj"), "personality": read("personality"), "cwd": link("cwd"), "root": link("root"),
	}
	for line := range strings.Lines(read("status")) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "Umask", "Tgid", "PPid", "TracerPid", "Uid", "Gid", "FDSize", "Groups", "NStgid", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn",
			"SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed":
			if !strings.HasSuffix(name, "id") || name == "Uid" || name == "Gid" {
				facts[name] = value
			}
		}
	}
	for _, v := range strings.Split(read("environ"), "\x00") {
		name, value, _ := strings.Cut(v, "=")
		// bash sets _ to the path of what it runs.
		if name != "_" {
			facts["env "+name] = value
		}
	}
	_, stat, _ := strings.Cut(read("stat"), ") ")
	fields := strings.Fields(stat) // from the third on, see proc(5)
	facts["session"], facts["tty"], facts["nice"], facts["policy"] = fields[3], fields[4], fields[16], fields[38]
	if fields[2] == fields[3] {
		facts["group"] = "the session's"
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target := link("fd/" + fd.Name())
		if strings.HasPrefix(target, "pipe:") {
			target = "a pipe"
		}
		facts["fd "+fd.Name()] = target
	}
	for _, ns := range []string{"net", "pid", "uts", "ipc", "user", "cgroup"} {
		facts["namespace "+ns] = link("ns/" + ns)
	}
	return facts
}

// TestInPlace: the program sees the same process, to the last detail, as without the launcher.
func TestInPlace(t *testing.T) {
	dir := scratch(t)
	if err := os.WriteFile(dir+"/file", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The signals are those that Go's runtime would take over: the ignored ones are lost if the launcher does not care.
	setup := `cd ` + dir + `; umask 027; ulimit -Sn 77; ulimit -Sc 0; exec 5<file 9>>file;
		exec env --ignore-signal=HUP,INT,QUIT,PIPE,TERM,USR1,CHLD,TSTP,RTMIN+3 --block-signal=USR2,ALRM,RTMIN+1 \
		nice -n 3 /bin/bash -c 'exec -a rbd "$0" "$@"' "$@"`
	script := `echo ready; read line; exit 7`
	facts := func(program string) map[string]string {
		cmd := command(t, "/bin/bash", "-c", setup, "bash", program, "-c", script, "a b", "", "'\"$x", "two\nlines", "--", "-m", "\xff")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "A=1", "EMPTY=", "TWO=a\nb", "LD_BIND_NOW=1"}
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		// The pid is that of the command started: nothing stands between.
		seen := observed(t, cmd.Process.Pid)
		io.WriteString(stdin, "\n")
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("%s ended with %d", program, code)
		}
		return seen
	}
	want, got := facts(native), facts(tools.rbd())
	if got["env OPENSSL_CONF"] != "/dev/null" {
		t.Errorf("OPENSSL_CONF is %q", got["env OPENSSL_CONF"])
	}
	delete(got, "env OPENSSL_CONF")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("without (-) and with the launcher (+):\n%s", diff)
	}
	// The comparison is worth something only if the set-up arrived.
	if want["nice"] != "3" || want["fd 5"] != dir+"/file" || want["cwd"] != dir || strings.TrimSpace(want["SigIgn"]) == "0000000000000000" {
		t.Errorf("the set-up did not take effect: %v", want)
	}
}

// TestIgnoredSignals is what the signals of TestInPlace are for.
func TestIgnoredSignals(t *testing.T) {
	for _, signal := range []string{"HUP", "TERM", "PIPE", "USR1"} {
		cmd := command(t, "env", "--ignore-signal="+signal, tools.rbd(), "-c", "kill -"+signal+" $$; echo alive")
		if r := run(t, cmd); r.stdout != "alive\n" || r.code != 0 {
			t.Errorf("SIG%s: %+v", signal, r)
		}
	}
}

// TestClosedDescriptors: what was closed is not /dev/null for the program.
func TestClosedDescriptors(t *testing.T) {
	for fd := range 3 {
		for closed, code := range map[string]int{fmt.Sprintf("%d>&-", fd): 1, "": 0} {
			cmd := command(t, "sh", "-c", `exec "$@" `+closed, "sh", tools.rbd(), "-c", fmt.Sprintf("[ -e /proc/$$/fd/%d ]", fd))
			if r := run(t, cmd); r.code != code {
				t.Errorf("%q: %+v", closed, r)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	for code := range 256 {
		if r := run(t, command(t, tools.rbd(), "-c", fmt.Sprintf("exit %d", code))); r != (result{code: code}) {
			t.Errorf("exit %d: %+v", code, r)
		}
	}
}

func TestEndsBySignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGHUP} {
		r := run(t, command(t, tools.rbd(), "-c", fmt.Sprintf("kill -%d $$", signal)))
		if r.signal != signal || r.stderr != "" {
			t.Errorf("%s: %+v", signal, r)
		}
	}
}

// TestSignalAtAnyTime: while the launcher works, as well as after it, a signal ends the process as it would end rbd.
func TestSignalAtAnyTime(t *testing.T) {
	before := mounts(t)
	for i := range 120 {
		signal := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGHUP}[i%4]
		cmd := command(t, tools.rbd(), "-c", "read line")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		stdin.Close()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != signal || stderr.String() != "" {
			t.Errorf("%s: %s, stderr %q", signal, cmd.ProcessState, stderr.String())
		}
	}
	if diff := cmp.Diff(before, mounts(t)); diff != "" {
		t.Errorf("mounts of the host before (-) and after (+):\n%s", diff)
	}
}

func mounts(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStandardInput(t *testing.T) {
	cmd := command(t, tools.rbd(), "-c", `while read -r line; do echo "<$line>"; done`)
	cmd.Stdin = strings.NewReader("one\ntwo\n")
	if r := run(t, cmd); r.stdout != "<one>\n<two>\n" || r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// TestClosedPipe: whoever stops reading, as head does, ends the command as natively, or gets EPIPE where the caller
// ignores SIGPIPE, as services of systemd do.
func TestClosedPipe(t *testing.T) {
	for _, ignore := range []string{"", "PIPE"} {
		ends := func(program string) result {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			defer w.Close()
			args := []string{program, "-c", "echo text || exit 9; exit 8"}
			if ignore != "" {
				args = append([]string{"/usr/bin/env", "--ignore-signal=" + ignore}, args...)
			}
			cmd := command(t, args[0], args[1:]...)
			cmd.Stdout = w
			got := run(t, cmd)
			got.stderr = strings.ReplaceAll(got.stderr, program, "rbd")
			return got
		}
		want, got := ends(native), ends(tools.rbd())
		if want != got {
			t.Errorf("ignoring %q: %+v natively, %+v with the launcher", ignore, want, got)
		}
		if ignore == "" && want.signal != syscall.SIGPIPE || ignore != "" && want.code != 9 {
			t.Errorf("ignoring %q: natively %+v", ignore, want)
		}
	}
}

func TestWorkingFolder(t *testing.T) {
	dir := scratch(t)
	if err := os.WriteFile(dir+"/keyring", []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, tools.rbd(), "-c", `echo "$(<keyring) $(<../`+filepath.Base(dir)+`/keyring) $PWD"`)
	cmd.Dir = dir
	if r := run(t, cmd); r.stdout != "secret secret "+dir+"\n" {
		t.Errorf("%+v", r)
	}
	// A folder below /usr is covered by the payload's but stays the working folder.
	cmd = command(t, tools.rbd(), "-c", `echo *`)
	cmd.Dir = "/usr/share/perl5"
	want, err := filepath.Glob(cmd.Dir + "/*")
	if err != nil || len(want) == 0 {
		t.Fatal("nothing in ", cmd.Dir, err)
	}
	if r := run(t, cmd); len(strings.Fields(r.stdout)) != len(want) {
		t.Errorf("%+v", r)
	}
}

func TestFiftyAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			cmd := command(t, tools.rbd(), "-c", `read line; echo "$line $1"; exit "$1"`, "rbd", fmt.Sprint(i))
			cmd.Stdin = strings.NewReader(fmt.Sprintf("line of %d\n", i))
			if r := run(t, cmd); r.stdout != fmt.Sprintf("line of %d %d\n", i, i) || r.code != i {
				t.Errorf("%d: %+v", i, r)
			}
		})
	}
	wg.Wait()
}
