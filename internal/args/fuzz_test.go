package args

import (
	"slices"
	"strings"
	"testing"
)

// Whatever a line is, reading it ends, what was read is what the line has, and
// the arranged form reads as the same line. That the reading is the genuine
// tool's is compared with that tool in test/conformance.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"ls", "ls\x00-lprbd", "-l\x00ls\x00--\x00-x", "snap\x00limit\x00set\x00i\x00--limit\x003", "help\x00ls", "--\x00ls",
		"feature\x00enable\x00--image=\x00a\x00b", "ls\x00--pool\x00--", "-\x00ls", "--pool=\x00ls", "trash\x00-x\x00purge\x00schedule", "ls\x00-p-l",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		argv := strings.Split(text, "\x00")
		before := slices.Clone(argv)
		line, err := Read(all, argv)
		if !slices.Equal(argv, before) {
			t.Fatalf("argv was changed: %q", argv)
		}
		if err != nil || line.Help {
			return
		}
		for _, s := range line.Options {
			if s.Option.Arg != "" && !strings.Contains(text, s.Value) {
				t.Errorf("%q: option %s has a value from nowhere: %q", argv, s.Option.Name, s.Value)
			}
		}
		for _, o := range line.Operands {
			if !slices.Contains(argv, o) {
				t.Errorf("%q: an operand from nowhere: %q", argv, o)
			}
		}
		// The arranged form is not for this reader in two points: it gives
		// switches a value, and writes an empty value after "=".
		arranged := line.Arranged()
		var again []string
		again = append(again, strings.Split(arranged[0], " ")...)
		for i, s := range line.Options {
			if arranged[i+1] != "--"+s.Option.Name+"="+s.Value {
				t.Fatalf("%q: %q", argv, arranged)
			}
			switch {
			case s.Option.Arg == "":
				again = append(again, "--"+s.Option.Name)
			case s.Value == "":
				again = append(again, "--"+s.Option.Name, "")
			default:
				again = append(again, "--"+s.Option.Name+"="+s.Value)
			}
		}
		again = append(again, arranged[len(line.Options)+1:]...)
		second, err := Read(all, again)
		if err != nil {
			t.Fatalf("%q, arranged as %q: %v", argv, again, err)
		}
		if !slices.Equal(second.Arranged(), arranged) {
			t.Errorf("%q reads as %q, then as %q", argv, arranged, second.Arranged())
		}
	})
}

// Secrets never points outside of a word, and Split loses no word.
func FuzzSplit(f *testing.F) {
	f.Add("ls\x00--key=x\x00-m\x00a")
	f.Add("--key\x00--key=\x00--\x00--key=y\x00-k")
	f.Fuzz(func(t *testing.T, text string) {
		argv := strings.Split(text, "\x00")
		for _, s := range Secrets(argv) {
			_ = argv[s.Index][s.From:]
		}
		ceph, rest := Split(argv)
		if len(ceph)+len(rest) != len(argv) {
			t.Errorf("%q: %q and %q", argv, ceph, rest)
		}
	})
}
