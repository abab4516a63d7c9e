package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// The key was made for this test; it opens nothing.
const key = "AQC2PQZrAAAAABAAAAAAAAAAAAAAAAAAAAAAAA=="

// request reads a line as the launcher does.
func request(t *testing.T, env map[string]string, line ...string) (krbd.Request, error) {
	t.Helper()
	ceph, rest := args.Split(line)
	read, err := args.Read([]*args.Command{Map}, rest)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return directRequest(ceph, read, func(name string) string { return env[name] })
}

// TestDirectRequest: what the kernel is asked for. That it gets the same by way of librbd is for test/krbd.
func TestDirectRequest(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyring := "[client.kube]\n\tkey = " + key + "\n"
	file("ceph.client.kube.keyring", keyring)
	conf := file("ceph.conf", "[global]\nmon host = [v2:10.0.0.1:3300,v1:10.0.0.1:6789]\nkeyring = "+dir+"/$cluster.$name.keyring\n"+
		"[client]\nrbd default pool = disks\nrbd_default_map_options = queue_depth=8,ro\n")
	site := file("site.conf", "[global]\nmon host = 10.0.0.4:1\nkeyring = "+dir+"/of-$cluster.$name.keyring\n")
	file("of-site.client.kube.keyring", keyring)
	type want struct{ mons, id, spec, options string }
	for _, test := range []struct {
		line string
		want want
	}{
		// As kubelet, and as a person.
		{"map rbd/disk --id kube -m 10.0.0.2:6789,10.0.0.3:6789 --key=" + key, want{"10.0.0.2:6789 10.0.0.3:6789", "kube", "rbd/disk", ""}},
		{"map disk --pool p -m 10.0.0.2 --id=kube --key " + key + " -o ms_mode=secure --read-only", want{"10.0.0.2:3300 10.0.0.2:6789", "kube", "p/disk", "ms_mode=secure,ro"}},
		{"-c " + conf + " --id kube map disk@snap", want{"10.0.0.1:3300 10.0.0.1:6789", "kube", "disks/disk@snap", "queue_depth=8,ro"}},
		{"-c " + conf + " -n client.kube device map p/ns/disk -o rw --exclusive", want{"10.0.0.1:3300 10.0.0.1:6789", "kube", "p/ns/disk", "exclusive,queue_depth=8"}},
		{"map disk -c " + conf + " --id kube -t krbd --keyring " + dir + "/none," + dir + "/ceph.client.kube.keyring -m 10.0.0.9:1", want{"10.0.0.9:1", "kube", "disks/disk", "queue_depth=8,ro"}},
		// A file after -c names the cluster, unless the line does.
		{"-c " + site + " --id kube map disk", want{"10.0.0.4:1", "kube", "rbd/disk", ""}},
		{"map disk -c " + conf + " --id other --keyfile " + file("key", key+"\n"), want{"10.0.0.1:3300 10.0.0.1:6789", "other", "disks/disk", "queue_depth=8,ro"}},
	} {
		r, err := request(t, nil, strings.Fields(test.line)...)
		if err != nil {
			t.Errorf("%s: %v", test.line, err)
			continue
		}
		var mons []string
		for _, m := range r.Monitors {
			mons = append(mons, m.Addr.String())
		}
		got := want{strings.Join(mons, " "), r.ID, r.Spec.String(), r.Options.String()}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(want{})); diff != "" || r.Secret != krbd.NewSecret(key) {
			t.Errorf("%s: the key is right: %v\n%s", test.line, r.Secret == krbd.NewSecret(key), diff)
		}
	}

	// What is not understood whole is left to librados.
	with := func(text string) string { return "-c " + file("other.conf", text) + " --id kube map disk" }
	for _, line := range []string{
		"map disk --id kube --key=" + key, // no monitor
		"map disk -m mon.example --id kube --key=" + key,
		"map disk -m 10.0.0.1 --id kube --keyring " + dir + "/none",
		"map disk -m 10.0.0.1 --id other --keyring " + dir + "/ceph.client.kube.keyring",
		"map disk -m 10.0.0.1 --id kube --setuser x --key=" + key,
		"map disk -m 10.0.0.1 -n osd.1 --key=" + key,
		"map disk -m 10.0.0.1 -c " + dir + "/none --id kube --key=" + key,
		"map disk -m 10.0.0.1 -t nbd --id kube --key=" + key,
		"map disk -m 10.0.0.1 --cookie x --id kube --key=" + key,
		"map disk -m 10.0.0.1 -o nosuch --id kube --key=" + key,
		"map a/b/c/d@e@f -m 10.0.0.1 -t krbd --show-cookie --id kube --key=" + key,
		"map -m 10.0.0.1 --id kube --key=" + key,
		"map disk -m 10.0.0.1 --timeout 5 --id kube --key=" + key,
		with("[global]\nmon_host = 10.0.0.1\nauth_client_required = none\nkey = " + key),
		with("[global]\nmon_host = 10.0.0.1\nkeyring = /$host/keyring"),
		with("no conf"),
		"-c " + site + " --cluster other --id kube map disk",
	} {
		if r, err := request(t, nil, strings.Fields(line)...); err == nil {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if r, err := request(t, map[string]string{"CEPH_KEYRING": "/x"}, "-c", conf, "--id", "kube", "map", "disk"); err == nil {
		t.Errorf("with CEPH_KEYRING: %+v", r)
	}
	if r, err := request(t, map[string]string{"CEPH_CONF": conf}, "--id", "kube", "map", "disk"); err != nil || r.Spec.Pool != "disks" {
		t.Errorf("with CEPH_CONF: %+v, %v", r, err)
	}
}
