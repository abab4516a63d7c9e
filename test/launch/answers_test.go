package launch

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// devices is a script that puts mapped devices into /sys, which this machine's kernel need not know of: three as the
// kernel shows them.
const devices = `
	mount -t tmpfs none /sys
	cd /sys
	add() { mkdir -p devices/rbd/$1 bus/rbd/devices; ln -s ../../../devices/rbd/$1 bus/rbd/devices/$1; cd devices/rbd/$1
		echo $2 >pool; echo $3 >pool_ns; echo $4 >name; echo $5 >current_snap; echo 252 >major; echo $(($1*16)) >minor
		echo "1.2.3.4:6789 name=admin,key=client.admin $2 $4 $5" >config_info; cd /sys; }
	add 0 rbd "" img -
	add 1 pool space "img" snap
	add 12 p2 "" image.with-all_kinds -
	mkdir -p module/rbd; touch bus/rbd/add_single_major bus/rbd/remove_single_major`

// TestAnswers: lists of mapped devices are the launcher's own, so they need no payload. That they are what the genuine
// rbd prints is for tests with mapped devices: it lists none that are not in a real sysfs.
func TestAnswers(t *testing.T) {
	alone := scratch(t)
	if err := copyFile("../../bin/shim", alone+"/bin/rbd"); err != nil {
		t.Fatal(err)
	}
	const plain = "id  pool  namespace  image                 snap  device    \n" +
		"0   rbd              img                   -     /dev/rbd0 \n" +
		"1   pool  space      img                   snap  /dev/rbd1 \n" +
		"12  p2               image.with-all_kinds  -     /dev/rbd12\n"
	const json = `[{"id":"0","pool":"rbd","namespace":"","name":"img","snap":"-","device":"/dev/rbd0"},` +
		`{"id":"1","pool":"pool","namespace":"space","name":"img","snap":"snap","device":"/dev/rbd1"},` +
		`{"id":"12","pool":"p2","namespace":"","name":"image.with-all_kinds","snap":"-","device":"/dev/rbd12"}]` + "\n"
	for line, want := range map[string]string{
		"showmapped": plain, "device list": plain, "device ls": plain, "showmapped --format plain": plain, "showmapped --key=": plain,
		"--id x -m 1.2.3.4 --keyring /dev/null device list -t krbd": plain,
		"showmapped --format json":                                  json, "device list --format=json --mon-host a": json,
	} {
		if got := (host{script: devices}).run(t, append([]string{alone + "/bin/rbd"}, strings.Fields(line)...)...); got != (result{stdout: want}) {
			t.Errorf("%s: %+v", line, got)
		}
	}
	// Not the launcher's: what it does not understand whole, and what has not been asked of it.
	for _, line := range []string{
		"showmapped extra", "showmapped --nosuch", "showmapped --format yaml", "showmapped --help", "help showmapped", "device list -t nbd", "device",
		"ls", "info unmap", "-c /nowhere showmapped", "--debug-ms 1 showmapped", "showmapped -m", "unmap image-of-the-default-pool", "unmap -o", "",
	} {
		got := host{script: devices}.run(t, append([]string{alone + "/bin/rbd"}, strings.Fields(line)...)...)
		if got.code != 127 || got.stderr != "rbd: nothing is installed at "+alone+"/rbd/current; run the installer again\n" {
			t.Errorf("%q: %+v", line, got)
		}
	}
	// CEPH_ARGS can hold the command.
	h := host{script: devices, env: []string{"CEPH_ARGS=--id x -- showmapped"}}
	if got := h.run(t, alone+"/bin/rbd"); got.code != 0 || !strings.Contains(got.stdout, "image.with-all_kinds") {
		t.Errorf("%+v", got)
	}
}

// TestAnswersToClosedPipe: rbd ignores SIGPIPE, so that head and the like never see it fail.
func TestAnswersToClosedPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	line := host{script: devices}.command(t, tools.rbd(), "showmapped")
	cmd := command(t, line[0], line[1:]...)
	cmd.Stdout = w
	if got := run(t, cmd); got != (result{}) {
		t.Errorf("%+v", got)
	}
}

// TestUnmapRefusals: the unmapping itself needs a kernel with rbd (test/krbd, test/node); here are the refusals, in the genuine
// tool's words.
func TestUnmapRefusals(t *testing.T) {
	for _, args := range [][]string{
		{"unmap"}, {"unmap", "/dev/null"}, {"unmap", "/dev/nosuch"}, {"unmap", "rbd/nosuch"}, {"unmap", "pool/space/img@other"}, {"device", "unmap", "rbd/a@b@c"},
		{"unmap", "--pool", "rbd", "--image", "nosuch"}, {"unmap", "-o", "nosuch", "/dev/rbd0"}, {"unmap", "/dev/null", "--id", "x", "-m", "mon"},
	} {
		want := host{script: devices}.run(t, append([]string{genuineRBD, "-c", "/dev/null"}, args...)...)
		got := host{script: devices}.run(t, append([]string{tools.rbd()}, args...)...)
		if got != want || got.code == 0 {
			t.Errorf("%q: got %+v, want %+v", args, got, want)
		}
	}
}

// TestNamer: the launcher as udev's helper says what the genuine script says.
func TestNamer(t *testing.T) {
	const script = "/usr/bin/ceph-rbdnamer"
	if _, err := os.Stat(script); err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends -y ceph-common", err)
	}
	dir := scratch(t)
	if err := os.Symlink(tools.rbd(), dir+"/ceph-rbdnamer"); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]string{"rbd0": "rbd/img", "rbd1": "pool/space/img@snap", "rbd1p2": "pool/space/img@snap", "rbd12": "p2/image.with-all_kinds", "rbd12p10": "p2/image.with-all_kinds"} {
		genuine := host{script: devices}.run(t, script, device)
		got := host{script: devices}.run(t, dir+"/ceph-rbdnamer", device)
		if got != genuine || got.stdout != want {
			t.Errorf("%s: got %+v, want %+v, expected %q", device, got, genuine, want)
		}
	}
	if got := (host{script: devices}).run(t, dir+"/ceph-rbdnamer", "rbd7"); got.code != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, "ceph-rbdnamer: rbd7 is not a mapped image: ") {
		t.Errorf("%+v", got)
	}
	if out, err := exec.Command(dir + "/ceph-rbdnamer").CombinedOutput(); err == nil || string(out) != "usage: ceph-rbdnamer rbdN[pM]\n" {
		t.Errorf("%v: %s", err, out)
	}
}
