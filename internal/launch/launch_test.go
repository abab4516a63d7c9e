package launch

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the launcher does to a process is tested in test/launch, on the launcher itself.

func TestReplaceKey(t *testing.T) {
	tests := []struct {
		argv, cephArgs string
		key            string // the one that counts
		want           string
	}{
		{argv: "rbd ls --key K", key: "K", want: "rbd ls --keyfile=F"},
		{argv: "rbd --key=K ls", key: "K", want: "rbd --keyfile=F ls"},
		{argv: "rbd-nbd map P/IMG --id ID -m MON --key=K", key: "K", want: "rbd-nbd map P/IMG --id ID -m MON --keyfile=F"},
		{argv: "rbd --key K1 ls --key=K2", key: "K2", want: "rbd --keyfile=F ls"},
		{argv: "rbd --key K ls --key=", want: "rbd ls --key="},
		{argv: "rbd --key= ls --key K", key: "K", want: "rbd --keyfile=F --key= ls"},
		{argv: "rbd -K f ls --key K --keyfile=g", key: "K", want: "rbd --keyfile=F -K f ls --keyfile=g"},
		{argv: "rbd ls --key K", cephArgs: " --id a  --keyfile f -K=g ", key: "K", want: "rbd ls --keyfile=F --keyfile f -K=g"},
		{argv: "rbd ls --key K", cephArgs: "-- --keyfile f", key: "K", want: "rbd ls --keyfile=F"},
		{argv: "rbd --key K ls -- --key OPERAND", key: "K", want: "rbd --keyfile=F ls -- --key OPERAND"},
		{argv: "rbd --id --key=NAME --key K ls", key: "K", want: "rbd --id --key=NAME --keyfile=F ls"},
		{argv: "rbd --key --id ls", key: "--id", want: "rbd --keyfile=F ls"},
		{argv: "rbd --keyring --key --key K", key: "K", want: "rbd --keyring --key --keyfile=F"},
	}
	for _, test := range tests {
		argv := strings.Split(test.argv, " ")
		key, found := findKey(argv)
		if !found || key != test.key {
			t.Errorf("%s: key %q, %v", test.argv, key, found)
		}
		file := ""
		if key != "" {
			file = "F"
		}
		if got := strings.Join(replaceKey(argv, file, test.cephArgs), " "); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.argv, got, test.want)
		}
	}
	for _, argv := range []string{"rbd", "rbd ls", "rbd --key= status", "rbd ls --key", "rbd --keyring --key ls", "rbd ls -- --key K", "rbd --id --key=NAME", "rbd image-meta get img key"} {
		if key, found := findKey(strings.Split(argv, " ")); found {
			t.Errorf("%s: key %q", argv, key)
		}
	}
}

// FuzzReplaceKey: whatever the line, no key stays, and nothing else goes.
func FuzzReplaceKey(f *testing.F) {
	f.Add("ls\x00--key\x00K")
	f.Add("--key=K\x00-K\x00f\x00--\x00--key\x00x")
	f.Add("--key\x00--key\x00--key")
	f.Fuzz(func(t *testing.T, line string) {
		argv := append([]string{"rbd"}, strings.Split(line, "\x00")...)
		key, found := findKey(argv)
		if !found {
			return
		}
		file := ""
		if key != "" {
			file = "F"
		}
		out := replaceKey(argv, file, "")
		if _, found := findKey(out); found {
			t.Errorf("%q became %q", argv, out)
		}
		others := func(argv []string) (words []string) {
			rest := eachOption(argv, func(name, value string, w []string) {
				if (name != "--key" || value == "") && !slices.Equal(w, []string{"--keyfile=F"}) {
					words = append(words, w...)
				}
			})
			return append(words, rest...)
		}
		if diff := cmp.Diff(others(argv), others(out)); diff != "" {
			t.Errorf("%q became %q:\n%s", argv, out, diff)
		}
	})
}

// TestWipe: /proc/PID/cmdline has nothing of the line once it is wiped.
func TestWipe(t *testing.T) {
	if os.Getenv("LAUNCH_TEST_WIPE") != "" {
		wipe(os.Args)
		b, err := os.ReadFile("/proc/self/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.Write(b)
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWipe$", "--", "--key=secret")
	cmd.Env = append(os.Environ(), "LAUNCH_TEST_WIPE=1")
	out, err := cmd.Output()
	if err != nil || len(out) == 0 || len(bytes.Trim(out, "\x00")) > 0 {
		t.Errorf("%v: %q", err, out)
	}
}

func TestEnviron(t *testing.T) {
	in := []string{"PATH=/bin", "LD_LIBRARY_PATH=/x", "LD_PRELOAD=", "LD_AUDIT=a", "LD_DEBUG=libs", "GCONV_PATH=x", "LOCPATH=x", "OPENSSL_CONF=/x",
		"OPENSSL_MODULES=x", "OPENSSL_ENGINES=x", "LANG=xx", "TZ=UTC", "LD_PRELOADED=1", "EMPTY=", "no equal sign", "LD_PRELOAD"}
	want := []string{"PATH=/bin", "LD_DEBUG=libs", "LANG=xx", "TZ=UTC", "LD_PRELOADED=1", "EMPTY=", "no equal sign", "LD_PRELOAD", "OPENSSL_CONF=/dev/null"}
	if diff := cmp.Diff(want, Environ(in)); diff != "" {
		t.Error(diff)
	}
}

// TestReadInterpreter compares with debug/elf on what this system has, which is programs of many kinds.
func TestReadInterpreter(t *testing.T) {
	files, err := filepath.Glob("/usr/bin/*")
	if err != nil {
		t.Fatal(err)
	}
	static, dynamic, other := 0, 0, 0
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
			continue
		}
		want := ""
		if f, err := elf.Open(file); err != nil {
			other++
		} else {
			for _, p := range f.Progs {
				if p.Type == elf.PT_INTERP {
					b, err := io.ReadAll(p.Open())
					if err != nil {
						t.Fatal(err)
					}
					want = strings.TrimRight(string(b), "\x00")
				}
			}
			f.Close()
			if want == "" {
				static++
			} else {
				dynamic++
			}
		}
		if got, err := readInterpreter(file); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
		}
	}
	if dynamic < 50 || other < 5 {
		t.Errorf("%d static, %d dynamic programs and %d other files are no test", static, dynamic, other)
	}
	if _, err := readInterpreter("/nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// FuzzReadInterpreter: a damaged program is no reason to crash.
func FuzzReadInterpreter(f *testing.F) {
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:1024])
	f.Add(b[:64])
	f.Add([]byte("\x7fELF\x02"))
	f.Fuzz(func(t *testing.T, content []byte) {
		file := t.TempDir() + "/program"
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		readInterpreter(file)
	})
}
