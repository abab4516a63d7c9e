package krbd

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestMapOptions(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{",,,", ""},
		{"rw", ""},
		{"rw,ro", "ro"},
		{"ro rw", ""},
		{"ro=yes", "ro"},
		{"udev,noudev", ""},
		{"rxbounce,queue_depth=64,ms_mode=crc,alloc_size=4096", "alloc_size=4096,ms_mode=crc,queue_depth=64,rxbounce"},
		{"noshare,share,noshare,nocrc,notcp_nodelay,nocephx_sign_messages,cephx_require_signatures", "cephx_require_signatures,nocephx_sign_messages,nocrc,noshare,notcp_nodelay"},
		{"queue_depth=1,queue_depth=+007", "queue_depth=7"},
		{"fsid={AAAAAAAABBBBCCCCDDDDEEEEEEEEEEEE}", "fsid=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"},
		{"fsid=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "fsid=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"},
		{"ip=1.2.3.4", "ip=1.2.3.4:0"},
		{"ip=v2:1.2.3.4:3300/7", "ip=1.2.3.4:3300"},
		{"ip=[::1]:5", "ip=[::1]:5"},
		{"ip=::1", "ip=[::1]:0"},
		{"crush_location=rack:a|dc:b", "crush_location=rack:a|dc:b"},
		{"read_from_replica=localize,compression_hint=none,lock_on_read,exclusive,notrim,abort_on_full,lock_timeout=0", "abort_on_full,compression_hint=none,exclusive,lock_on_read,lock_timeout=0,notrim,read_from_replica=localize"},
		{"mount_timeout=1,osdkeepalive=2,osd_idle_ttl=3,osd_request_timeout=4", "mount_timeout=1,osd_idle_ttl=3,osd_request_timeout=4,osdkeepalive=2"},
	} {
		var o MapOptions
		if err := o.Parse(c.in); err != nil || o.String() != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, o.String(), err, c.want)
		}
	}
}

// Each answer is that of rbd 16.2.15 to the same option.
func TestMapOptionMistakes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"foo", "unknown map option 'foo'"},
		{"=5", "unknown map option ''"},
		{"rw foo", "unknown map option 'foo'"},
		{"rw;ro", "unknown map option 'rw;ro'"},
		{"rw\tro", "unknown map option 'rw\tro'"},
		{"x=y=z", "unknown map option 'x'"},
		{"force", "unknown map option 'force'"},
		{"fsid", "fsid option requires a value"},
		{"ms_mode=", "ms_mode option requires a value"},
		{"queue_depth= 5", "queue_depth option requires a value"},
		{"crush_location=", "crush_location option requires a value"},
		{"fsid=12", "invalid fsid value '12'"},
		{"fsid={aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "invalid fsid value '{aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee'"},
		{"fsid=aaaaaaaa-bbbbccccddddeeeeeeeeeeee", "invalid fsid value 'aaaaaaaa-bbbbccccddddeeeeeeeeeeee'"},
		{"ip=1", "invalid ip value '1'"},
		{"ip=1.2.3.4x", "invalid ip value '1.2.3.4x'"},
		{"ip=1.2.3.4:99999", "invalid ip value '1.2.3.4:99999'"},
		{"queue_depth=x", "invalid queue_depth value 'x'"},
		{"queue_depth=-1", "invalid queue_depth value '-1'"},
		{"queue_depth=5=6", "invalid queue_depth value '5=6'"},
		{"queue_depth=2147483648", "invalid queue_depth value '2147483648'"},
		{"queue_depth=0x10", "invalid queue_depth value '0x10'"},
		{"read_from_replica=x", "invalid read_from_replica value 'x'"},
		{"compression_hint=x", "invalid compression_hint value 'x'"},
		{"ms_mode=x", "invalid ms_mode value 'x'"},
	} {
		var o MapOptions
		var e *Error
		if err := o.Parse(c.in); !errors.As(err, &e) || e.Text != c.want || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: got %v, want %s", c.in, err, c.want)
		}
	}
}

func TestOptionsThatBeatOthers(t *testing.T) {
	var o, defaults MapOptions
	for _, err := range []error{o.Parse("rw,queue_depth=9"), defaults.Parse("ro,queue_depth=1,noudev,exclusive")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o.SetReadOnly()
	o.SetDefaults(defaults)
	if got := o.String(); got != "exclusive,queue_depth=9,ro" {
		t.Error(got)
	}
	if !o.noudev() {
		t.Error("noudev of the defaults was lost")
	}
	var none MapOptions
	none.SetDefaults(MapOptions{})
	none.SetExclusive()
	if got := none.String(); got != "exclusive" {
		t.Error(got)
	}
}

func TestUnmapOptions(t *testing.T) {
	var o UnmapOptions
	if err := o.Parse("noudev,force=1,udev"); err != nil || o.String() != "force" || o.noudev() {
		t.Error(o, err)
	}
	var e *Error
	if err := o.Parse("rw"); !errors.As(err, &e) || e.Text != "unknown unmap option 'rw'" {
		t.Error(err)
	}
}

// What the parser lets through must not change the meaning of the kernel's
// line, and must read as itself again.
func FuzzMapOptions(f *testing.F) {
	for _, s := range []string{"rw,ro", "ms_mode=crc,queue_depth=5", "fsid={aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee}", "ip=[::1]:5", "ip=v1:1.2.3.4/8", "crush_location=a\tb", "noudev"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var o, again MapOptions
		if o.Parse(s) != nil {
			return
		}
		line := o.String()
		if strings.Contains(line, ",,") || strings.ContainsRune(line, ' ') || strings.Contains(line, "udev") && !strings.Contains(line, "crush_location=") {
			t.Errorf("%q gives %q", s, line)
		}
		if err := again.Parse(line); err != nil || again.String() != line {
			t.Errorf("%q gives %q, which gives %q, %v", s, line, again, err)
		}
	})
}
