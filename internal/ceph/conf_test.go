package ceph

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/conf"
)

// confOptions are what the launcher reads by internal/conf when it maps by
// itself, as far as any text can be their value.
var confOptions = []string{"mon_host", "keyring", "keyfile", "rbd_default_pool", "rbd_default_map_options"}

// FuzzConf reads files as librados does: what internal/conf takes it has to
// take for the same. What it refuses is left to librados.
func FuzzConf(f *testing.F) {
	for _, text := range []string{
		"", "[global]\nmon_host = 10.0.0.1\n", "[global]\n\tmon host = 10.0.0.1, \\\n\t\t10.0.0.2   ; the third one comes later\n",
		"[client]\nkeyring = /etc/ceph/$cluster.$name.keyring\n[client.kube]\nrbd-default-pool = \"disks\" # quoted\n",
		"[client.kube]\nmon_host = a\n[client]\nmon_host = b\n[global]\nmon_host = c\n", "[osd]\nkeyring = x\n", "[global] # why\nkeyfile='a b'\n",
		"[ global ]\nmon__host = a\n", "[ global ]\nmon  host = a\n", "[global]\nmon-host = a\n", "[global]\r\nmon_host = a\r\n", "[global\n", "words\n", "[global]\nmon_host = a = b\n", "[global]\nmon_host =\n", "[global]\nmon_host = a\\\n#b\n",
		// Found: what librados reads otherwise than one would think.
		" ", "[global]\n \n", "[global]\nmon_host = a", "\nmon_host = a\n", "[global]\n =\n", "#\\\n0\n", "[]\n", "[0#0]\n", "[0]\"\n", "[global]\nm#0=0\n",
		"[0]\n0=\"00\n", "[0]\n0='#'\n", "[client]\nkeyring=$namea\n", "[client]\nkeyring=${name\n",
	} {
		f.Add(text)
	}
	file := filepath.Join(f.TempDir(), "ceph.conf")
	read := func(t testing.TB, text string) map[string]string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, err := New([]string{"--conf", file, "--id", "kube"}, io.Discard)
		if err != nil {
			t.Fatalf("%q: librados: %v", text, err)
		}
		defer c.Shutdown()
		values := make(map[string]string)
		for _, option := range confOptions {
			values[option] = c.Config(option)
		}
		return values
	}
	defaults := read(f, "")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := conf.Parse(text, "client.kube")
		if err != nil {
			return
		}
		want := read(t, text)
		for _, option := range confOptions {
			value, ok := got[option]
			if !ok {
				value = defaults[option]
			}
			value, ok = conf.Expand(value, "ceph", "client.kube")
			if ok && value != want[option] {
				t.Errorf("%q: %s is %q, librados has %q", text, option, value, want[option])
			}
		}
	})
}
