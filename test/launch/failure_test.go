package launch

import (
	"os"
	"strings"
	"testing"
)

// TestOrdinaryUser: who may not mount gets the program, too, with the payload's libraries alone.
func TestOrdinaryUser(t *testing.T) {
	script := `echo "$PWD $1 ${OPENSSL_CONF-} ${LD_LIBRARY_PATH-}"; read -r line; echo "$line"; cat /proc/$$/maps; exit 42`
	for name, line := range map[string][]string{
		"nobody":              {"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
		"root without rights": {"/usr/bin/setpriv", "--bounding-set=-sys_admin"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := scratch(t)
			cmd := command(t, line[0], append(line[1:], "/usr/bin/env", "LD_LIBRARY_PATH=/nowhere", tools.rbd(), "-c", script, "rbd", "a b'\n\"")...)
			cmd.Dir = dir
			cmd.Stdin = strings.NewReader("typed\n")
			r := run(t, cmd)
			head, maps, _ := strings.Cut(r.stdout, "typed\n")
			if head != dir+" a b'\n\" /dev/null \n" || r.code != 42 || r.stderr != "" {
				t.Fatalf("%+v", r)
			}
			for line := range strings.Lines(maps) {
				if strings.Contains(line, ".so") && !strings.Contains(line, tools.payload(t)) {
					t.Errorf("not of the payload: %s", line)
				}
			}
			if !strings.Contains(maps, "libc.so.6") {
				t.Errorf("no libraries: %s", maps)
			}
		})
	}
}

// TestFailures: the launcher's own failures have one line, which says what to do, and codes that rbd never has.
func TestFailures(t *testing.T) {
	broken := func(t *testing.T, change func(dir string) error) installation {
		dir := scratch(t)
		if err := installShim(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir+"/rbd/versions/new/usr/bin", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		return installation(dir)
	}
	program := func(content string, mode os.FileMode) func(string) error {
		return func(dir string) error { return os.WriteFile(dir+"/rbd/current/usr/bin/rbd", []byte(content), mode) }
	}
	foreign, err := os.ReadFile(native)
	if err != nil {
		t.Fatal(err)
	}
	foreign[18], foreign[19] = 0x2b, 0 // e_machine: EM_SPARCV9
	tests := []struct {
		name   string
		change func(dir string) error
		argv0  string
		code   int
		want   string // $DIR is the installation
	}{
		{"nothing installed", func(dir string) error { return os.Remove(dir + "/rbd/current") }, "", 127,
			"rbd: nothing is installed at $DIR/rbd/current; run the installer again\n"},
		{"payload gone", func(dir string) error { return os.RemoveAll(dir + "/rbd/versions/new") }, "", 127,
			"rbd: the payload $DIR/rbd/versions/new is gone; run the installer again\n"},
		{"no rbd in it", func(string) error { return nil }, "", 127,
			"rbd: the payload $DIR/rbd/versions/new has no usr/bin/rbd; install one that has it\n"},
		{"no rbd-nbd in it", program("", 0o755), "rbd-nbd", 127,
			"rbd: the payload $DIR/rbd/versions/new has no usr/bin/rbd-nbd; install one that has it\n"},
		{"another architecture", program(string(foreign), 0o755), "", 127,
			"rbd: the payload has no /usr/lib64/ld-linux-x86-64.so.2; run the installer again\n"},
		{"not a program", program("text", 0o755), "", 126,
			"rbd: cannot run /usr/bin/rbd: exec format error; install the payload made for this architecture\n"},
		{"not executable", program("text", 0o644), "", 126,
			"rbd: cannot run /usr/bin/rbd: permission denied; is the payload on a file system mounted noexec, or is its security label wrong?\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i := broken(t, test.change)
			cmd := command(t, i.rbd(), "ls")
			if test.argv0 != "" {
				cmd.Args[0] = test.argv0
			}
			want := result{code: test.code, stderr: strings.ReplaceAll(test.want, "$DIR", string(i))}
			if got := run(t, cmd); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}

	// The rest happens on hosts unlike this one, made as a folder to chroot into: only /usr is this machine's.
	hosts := []struct {
		name   string
		mount  string // what makes the root
		script string // in the root
		want   result
	}{
		{"merged /usr", "mount -t tmpfs none", "ln -s usr/lib64 lib64", result{code: 5}},
		{"merged /usr with /lib64 in /usr/lib", "mount -t tmpfs none", "ln -s usr/lib lib64", result{code: 5}},
		{"unmerged /usr", "mount -t tmpfs none", "mkdir lib64; cp /lib64/ld-linux-x86-64.so.2 lib64/", result{code: 126,
			stderr: "rbd: /lib64 of this host is not a link to /usr/lib64, which the payload needs; merge /usr (package usrmerge)\n"}},
		{"chroot that is no mount", "ls", "ln -s usr/lib64 lib64", result{code: 126,
			stderr: "rbd: cannot cut / off from the host's mounts; in a chroot / has to be a mount point: invalid argument\n"}},
	}
	for _, test := range hosts {
		t.Run(test.name, func(t *testing.T) {
			dir := scratch(t)
			h := host{script: test.mount + " " + dir + "; cd " + dir + `
				mkdir usr dev proc etc opt; mount --bind /usr usr; mount --rbind /dev dev; mount -t proc none proc
				mount --bind ` + string(tools) + " opt; ln -s usr/bin bin; ln -s usr/lib lib; " + test.script}
			if got := h.run(t, "/usr/sbin/chroot", dir, "/opt/bin/rbd", "-c", "exit 5"); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
	t.Run("no more mount namespaces", func(t *testing.T) {
		// The limit is of a user namespace, so the test has one of its own.
		cmd := command(t, "/usr/bin/unshare", "--user", "--map-root-user", "--mount", "/bin/bash", "-euc",
			`echo 1 >/proc/sys/user/max_mnt_namespaces; exec "$@"`, "bash", tools.rbd(), "-c", "exit 5")
		want := result{code: 126, stderr: "rbd: cannot make a mount namespace; raise the sysctl user.max_mnt_namespaces or fs.mount-max: no space left on device\n"}
		if got := run(t, cmd); got != want {
			t.Errorf("%+v", got)
		}
	})
}
