package launch

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// TestKeyIsHidden: no other user of the host can read a key that was given as --key, and the program gets it all the
// same, to the byte.
func TestKeyIsHidden(t *testing.T) {
	const key = "AQD+secret/key==\n"
	for _, line := range [][]string{{"--key", key}, {"--key=" + key}, {"--key", "other secret", "--key", key}} {
		// -c takes a value for Ceph, too, so the script is never taken for something else.
		script := `echo ready; read -r line; for a; do [[ $a = --keyfile=* ]] && IFS= read -rd '' k <${a#--keyfile=}; done; printf '%s|' "$k" "$@"`
		cmd := command(t, tools.rbd(), append([]string{"-c", script, "rbd", "a"}, append(line, "--", "--key", "operand")...)...)
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
		if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, name))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "secret") {
				t.Errorf("%q: the key is in %s: %q", line, name, b)
			}
		}
		fmt.Fprintln(stdin)
		rest, err := io.ReadAll(stdout)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		got := string(rest)
		if !strings.HasPrefix(got, key+"|a|--keyfile=/proc/self/fd/") || !strings.HasSuffix(got, "|--|--key|operand|") {
			t.Errorf("%q: got %q", line, got)
		}
	}
}

// TestKeyAndFileSize: a limit of the size of files keeps no key from the program, and stays as it was. Only who may not
// lift it is told.
func TestKeyAndFileSize(t *testing.T) {
	script := `for a; do [[ $a = --keyfile=* ]] && IFS= read -rd '' k <${a#--keyfile=}; done; printf '%s|%s' "$k" "$(</proc/self/limits)"`
	refused := result{code: 126, stderr: "rbd: cannot keep the key off the command line: the limit of a file's size (ulimit -f) is below the key's; raise it, or give a --keyfile\n"}
	lifted := func(limit string) string {
		// Root may, but not in every container.
		if err := command(t, "/usr/bin/prlimit", "--fsize=10:10", "/usr/bin/prlimit", "--fsize=20:20", "/bin/true").Run(); err != nil {
			return ""
		}
		return limit
	}
	for _, test := range []struct{ user, limit, want string }{
		{"0", "0:0", lifted("0 0")},
		{"0", "10:10", lifted("10 10")},
		{"65534", "10:unlimited", "10 unlimited"},
		{"65534", "12:12", "12 12"},
		{"65534", "0:0", ""},
		{"65534", "11:11", ""},
	} {
		const key = "secret key=="
		got := run(t, command(t, "/usr/bin/prlimit", "--fsize="+test.limit, "/usr/bin/setpriv", "--reuid="+test.user, "--clear-groups",
			tools.rbd(), "-c", script, "rbd", "--key", key))
		if test.want == "" {
			if got != refused {
				t.Errorf("uid %s, %s: %+v, want %+v", test.user, test.limit, got, refused)
			}
			continue
		}
		var limits string
		for line := range strings.Lines(got.stdout) {
			if rest, found := strings.CutPrefix(line, "Max file size "); found { // soft, hard, unit
				limits = strings.Join(strings.Fields(rest)[:2], " ")
			}
		}
		if !strings.HasPrefix(got.stdout, key+"|") || limits != test.want || got.code != 0 {
			t.Errorf("uid %s, %s: limits %q, %+v", test.user, test.limit, limits, got)
		}
	}
}

// TestKeyCounts: every way to say which key counts means what it means to the genuine rbd.
func TestKeyCounts(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	good, err := c.Secret("client.admin")
	if err != nil {
		t.Fatal(err)
	}
	dir := scratch(t)
	const wrong = "AQBpTT5fAAAAABAA0000000000000000000000=="
	bad := good[:20] + "AAAAAAAAAAAAAAAA" + good[36:]
	files := map[string]string{
		"good": good, "bad": bad, "newline": good + "\n", "empty.conf": "",
		"bad.conf": "[global]\nkey = " + bad + "\n", "badfile.conf": "[global]\nkeyfile = " + dir + "/bad\n",
		"good.conf":    "[global]\nkey = " + good + "\n",
		"good.keyring": "[client.admin]\nkey = " + good + "\n", "bad.keyring": "[client.admin]\nkey = " + bad + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := c.Command(t.Context(), genuineRBD, "create", "--size", "8M", "img").CombinedOutput(); err != nil {
		t.Fatalf("rbd create: %v: %s", err, out)
	}
	tests := []struct {
		env  string // CEPH_ARGS
		conf string
		args []string
		fine bool // does the cluster let this one in
	}{
		{conf: "empty.conf", args: []string{"--key", good}, fine: true},
		{conf: "empty.conf", args: []string{"--key=" + good}, fine: true},
		{conf: "empty.conf", args: []string{"--key", good + "\n"}, fine: true},
		{conf: "empty.conf", args: []string{"--key", bad}},
		{conf: "empty.conf", args: []string{"--key", "not base64"}},
		{conf: "empty.conf", args: []string{"--key", wrong}},
		{conf: "bad.conf", args: []string{"--key", good}, fine: true},
		{conf: "badfile.conf", args: []string{"--key", good}, fine: true},
		{conf: "good.conf", args: []string{"--key", bad}},
		{conf: "good.conf", args: []string{"--key="}, fine: false},
		{conf: "empty.conf", env: "--key " + bad, args: []string{"--key", good}, fine: true},
		{conf: "empty.conf", env: "--keyfile bad", args: []string{"--key", good}},
		{conf: "empty.conf", env: "--keyfile good", args: []string{"--key", bad}, fine: true},
		{conf: "empty.conf", args: []string{"--keyfile", "bad", "--key", good}},
		{conf: "empty.conf", args: []string{"--key", good, "--keyfile=bad"}},
		{conf: "empty.conf", args: []string{"-K", "bad", "--key", good}},
		{conf: "empty.conf", args: []string{"--keyfile", "good", "--key", bad}, fine: true},
		{conf: "empty.conf", args: []string{"--key", bad, "--keyfile", "bad", "-K", "good"}, fine: true},
		{conf: "empty.conf", args: []string{"--keyfile", "nosuch", "--key", good}, fine: true},
		{conf: "empty.conf", args: []string{"--key", good, "--keyfile="}, fine: true},
		{conf: "empty.conf", args: []string{"--keyring", "bad.keyring", "--key", good}, fine: true},
		{conf: "empty.conf", args: []string{"--keyring", "good.keyring", "--key", bad}},
		{conf: "empty.conf", args: []string{"--key", bad, "--key", good}, fine: true},
		{conf: "empty.conf", args: []string{"--key", good, "--key", bad}},
		{conf: "empty.conf", args: []string{"--key", bad, "--key=", "--keyring", "good.keyring"}, fine: true},
		{conf: "empty.conf", args: []string{"--key", bad, "--key=", "--keyfile", "good"}, fine: true},
		{conf: "empty.conf", args: []string{"--key", bad, "--key", "", "--keyring", "good.keyring"}, fine: true},
		{conf: "empty.conf", args: []string{"--keyfile", "newline"}, fine: true},
		{conf: "empty.conf", args: []string{"--keyring", "good.keyring", "--id", "--key=admin"}},
	}
	for _, test := range tests {
		name := strings.NewReplacer(good, "GOOD", bad, "BAD").Replace(fmt.Sprintf("%s %q %q", test.conf, test.env, test.args))
		ends := func(program string) result {
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			cmd := c.Command(ctx, program, append([]string{"--conf", test.conf, "-m", c.MonV1(), "ls"}, test.args...)...)
			cmd.Env = append(cmd.Env, "CEPH_ARGS="+test.env)
			cmd.Dir = dir
			got := end(t, cmd.Cmd, cmd.Run)
			got.stderr = "" // it has times and addresses of memory
			return got
		}
		want, got := ends(genuineRBD), ends(genuine.rbd())
		if got != want {
			t.Errorf("%s: %+v natively, %+v with the launcher", name, want, got)
		}
		if (want.code == 0) != test.fine {
			t.Errorf("%s: natively %+v", name, want)
		}
	}
}
