package launch

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// TestMounts: nothing that the launcher mounts is seen outside, even where every mount is shared, as systemd has it;
// what the host mounts and unmounts reaches a running program, so that it holds nothing.
func TestMounts(t *testing.T) {
	script := `
		mount --make-rshared /
		mkdir $T/m
		before=$(</proc/self/mountinfo)
		coproc { exec "$0" -c 'echo ready; read line'; }
		pid=$COPROC_PID
		read -ru ${COPROC[0]} line
		[[ $line = ready ]]
		[[ $before = "$(</proc/self/mountinfo)" ]] || { echo mounts are seen outside; exit 1; }
		grep -q ' /usr ' /proc/$pid/mountinfo || { echo no mount over /usr; exit 1; }
		mount -t tmpfs none $T/m
		grep -q " $T/m " /proc/$pid/mountinfo || { echo a mount of the host is not seen inside; exit 1; }
		umount $T/m
		! grep -q " $T/m " /proc/$pid/mountinfo || { echo the program holds an unmounted file system; exit 1; }
		kill -KILL $pid
		wait $pid || true
		[[ $before = "$(</proc/self/mountinfo)" ]] || { echo mounts are left; exit 1; }`
	cmd := command(t, "/usr/bin/unshare", "--mount", "/bin/bash", "-euc", script, tools.rbd())
	cmd.Env = append(os.Environ(), "T="+scratch(t))
	if r := run(t, cmd); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// TestHostFolders: what a payload has empty is the host's; the rest of /usr is the payload's.
func TestHostFolders(t *testing.T) {
	// An overlay, so that the machine's own /usr need not have these.
	setup := `
		mkdir $T/upper $T/work
		mount -t overlay none -o lowerdir=/usr,upperdir=$T/upper,workdir=$T/work /usr
		mkdir -p /usr/lib/modules/1.2.3 /usr/lib/modprobe.d /usr/share/zoneinfo
		echo dep >/usr/lib/modules/1.2.3/modules.dep
		echo conf >/usr/lib/modprobe.d/x.conf
		echo zone >/usr/share/zoneinfo/Test`
	script := `echo $(</lib/modules/1.2.3/modules.dep) $(</usr/lib/modprobe.d/x.conf) $(</usr/share/zoneinfo/Test); echo /usr/*`
	want := "dep conf zone\n/usr/bin /usr/lib /usr/lib64 /usr/sbin /usr/share\n"
	if r := (host{script: setup}).run(t, tools.rbd(), "-c", script); r.stdout != want {
		t.Errorf("%+v", r)
	}
	t.Run("read-only payload", func(t *testing.T) {
		setup += "\nmount --bind " + string(tools) + " " + string(tools) + "; mount -o remount,bind,ro " + string(tools)
		if r := (host{script: setup}).run(t, tools.rbd(), "-c", script); r.stdout != want {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a host without them", func(t *testing.T) {
		setup := strings.Split(setup, "mkdir -p")[0] + "\nrm -rf /usr/lib/modules /usr/lib/modprobe.d /usr/share/zoneinfo"
		if r := (host{script: setup}).run(t, tools.rbd(), "-c", "echo /usr/lib/modules/*"); r.stdout != "/usr/lib/modules/*\n" || r.code != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("payload below /usr", func(t *testing.T) {
		setup += "\nmkdir -p /usr/local/opt; mount --bind " + string(tools) + " /usr/local/opt"
		if r := (host{script: setup}).run(t, "/usr/local/opt/bin/rbd", "-c", script); r.stdout != want {
			t.Errorf("%+v", r)
		}
	})
}

// brokenLibrary makes libz.so.1, which the genuine rbd loads, of a kind that ends every program that loads it: what a
// library of another distribution does in the worst case.
func brokenLibrary(t *testing.T) string {
	dir := scratch(t)
	source := `#include <unistd.h>
		__attribute__((constructor)) static void loaded(void) { _exit(99); }
		unsigned la_version(unsigned v) { return v; }`
	cmd := exec.Command("gcc", "-shared", "-fPIC", "-Wl,-soname,libz.so.1", "-o", dir+"/libz.so.1", "-x", "c", "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	return dir
}

// TestHostSettings breaks the host in the ways in which one host differs from the distribution of the payload. The
// genuine rbd fails each time, or says something, and not so with the launcher, as root or as an ordinary user.
func TestHostSettings(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	if out, err := c.Command(t.Context(), genuineRBD, "create", "--size", "8M", "img").CombinedOutput(); err != nil {
		t.Fatalf("rbd create: %v: %s", err, out)
	}
	broken := brokenLibrary(t)
	// The file that a host under a policy has: it turns off what is not approved there, or names what is only there.
	if err := os.WriteFile(broken+"/openssl.cnf", []byte("openssl_conf = init\n[init]\nproviders = p\nnew_module = n\n[n]\nx = y\n[p]\nlegacy = l\n[l]\nactivate = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		setup string // $B is the folder of the broken library
		env   []string
		args  []string
		root  bool // only root can have it put right
		fine  bool // does not break the genuine rbd on this distribution, but is worth a look
	}{
		{name: "openssl.cnf", setup: "cp $B/openssl.cnf /etc/ssl/openssl.cnf"},
		{name: "OPENSSL_CONF", env: []string{"OPENSSL_CONF=" + broken + "/openssl.cnf"}},
		{name: "OPENSSL_MODULES", env: []string{"OPENSSL_MODULES=" + broken, "OPENSSL_ENGINES=" + broken}, fine: true},
		{name: "ld.so.preload of a missing library", setup: "echo /usr/lib/libnosuch.so >/etc/ld.so.preload", root: true},
		{name: "ld.so.preload of a foreign library", setup: "echo $B/libz.so.1 >/etc/ld.so.preload", root: true},
		{name: "ld.so.cache", setup: "echo $B >$T/conf; ldconfig -C /etc/ld.so.cache -f $T/conf"},
		{name: "garbage in ld.so.cache", setup: "head -c 10000 /dev/urandom >/etc/ld.so.cache", fine: true},
		{name: "LD_LIBRARY_PATH", env: []string{"LD_LIBRARY_PATH=" + broken}},
		{name: "LD_PRELOAD", env: []string{"LD_PRELOAD=" + broken + "/libz.so.1"}},
		{name: "LD_AUDIT", env: []string{"LD_AUDIT=" + broken + "/libz.so.1"}},
		{name: "nsswitch.conf", setup: "echo 'hosts: nosuch [!UNAVAIL=return] files dns' >/etc/nsswitch.conf; echo " + c.Addr() + " mon.test >>/etc/hosts",
			args: []string{"-m", "mon.test"}, fine: true},
		{name: "unknown locale", env: []string{"LC_ALL=xx_YY.UTF-8", "LANG=xx_YY", "LANGUAGE=xx", "LOCPATH=" + broken, "GCONV_PATH=" + broken}, fine: true},
	}
	keyring := broken + "/keyring"
	if err := copyFile(c.Keyring("client.admin"), keyring); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			host := host{env: test.env}
			if test.setup != "" {
				host.script = "B=" + broken + "; cp -a /etc $T/etc; mount --bind $T/etc /etc; " + test.setup
			}
			ends := func(program string, uid int) result {
				host.uid = uid
				line := host.command(t, append([]string{program, "--keyring", keyring, "ls"}, test.args...)...)
				ctx, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				cmd := c.Command(ctx, line[0], line[1:]...)
				return end(t, cmd.Cmd, cmd.Run)
			}
			want := result{stdout: "img\n"}
			if got := ends(genuineRBD, 0); (got == want) != test.fine {
				t.Errorf("without the launcher: %+v", got)
			}
			if got := ends(genuine.rbd(), 0); got != want {
				t.Errorf("root: %+v", got)
			}
			if got := ends(genuine.rbd(), nobody); got != want && !test.root {
				t.Errorf("an ordinary user: %+v", got)
			}
		})
	}

	// The host's zones are there, though the rest of its /usr is not: times are printed as natively.
	t.Run("time zone", func(t *testing.T) {
		info := func(program string) string {
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			cmd := c.Command(ctx, program, "--keyring", keyring, "info", "img")
			cmd.Env = append(cmd.Env, "TZ=Asia/Kathmandu")
			return end(t, cmd.Cmd, cmd.Run).stdout
		}
		native, got := info(genuineRBD), info(genuine.rbd())
		if got != native || !strings.Contains(got, "create_timestamp: ") {
			t.Errorf("natively:\n%s\nwith the launcher:\n%s", native, got)
		}
		if _, err := os.Stat("/usr/share/zoneinfo/Asia/Kathmandu"); err != nil {
			t.Fatalf("%v: apt-get install --no-install-recommends -y tzdata", err)
		}
	})
}
