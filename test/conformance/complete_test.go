package conformance

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestComplete asks the functions of the shells themselves, each run by its
// shell, what a line could become.
func TestComplete(t *testing.T) {
	// On both sides: what is compared later has the pool's number in it.
	both(t, func(s *side) (answer, error) { return answer{}, s.emptyPool() })
	for _, line := range []string{
		"create disk1 --size 1M", "create disk2 --size 1M", "create other --size 1M", "snap create disk1@monday --no-progress",
		"namespace create rbd/space", "create rbd/space/inner --size 1M",
	} {
		if r := ours.cluster.Rbd(strings.Fields(line)...); r.Code != 0 {
			t.Fatal(line, ": ", r.Stderr)
		}
	}
	// By this name the functions are known.
	bin := t.TempDir()
	if err := os.Symlink(ours.program, filepath.Join(bin, "rbd")); err != nil {
		t.Fatal(err)
	}
	share, err := filepath.Abs("../../share")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "backup.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shells := map[string][]string{
		// What bash is given ends in what stands behind the last @ or /.
		"bash": {"bash", "--norc", "-c", `. "$1/bash-completion/completions/rbd"; COMP_LINE=$2 COMP_POINT=${#2} _opt_rbd; printf '%s\n' "${COMPREPLY[@]}"`},
		// Of zsh's completion only the calls are caught.
		"zsh": {"zsh", "-f", "-c", `compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -rl -- "$@" }
			compset() { before=${(M)words[CURRENT]##${~2}} }; _files() { for file in *; do print -r -- "$before$file"; done }
			words=("${(@s: :)2}"); CURRENT=${#words}; . "$1/zsh/site-functions/_rbd"`},
		"fish": {"fish", "--no-config", "-c", `. $argv[1]/fish/vendor_completions.d/rbd.fish; complete -C $argv[2]`},
	}
	for line, want := range map[string][]string{
		"rbd na":                   {"namespace"},
		"rbd snap unp":             {"unprotect"},
		"rbd ls --for":             {"--format"},
		"rbd ls --format ":         {"json", "plain", "xml"},
		"rbd info d":               {"disk1", "disk2"},
		"rbd info rbd/d":           {"rbd/disk1", "rbd/disk2"},
		"rbd -p rbd info o":        {"other"},
		"rbd info rbd/space/":      {"rbd/space/inner"},
		"rbd namespace ls r":       {"rbd"},
		"rbd snap rm disk1@":       {"disk1@monday"},
		"rbd snap create disk2":    {"disk2@"},
		"rbd import ba":            {"backup.img"},
		"rbd import --path=ba":     {"--path=backup.img"},
		"rbd info --pool=r":        {"--pool=rbd"},
		"rbd info --image=d":       {"--image=disk1", "--image=disk2"},
		"rbd info --image=rbd/o":   {"--image=rbd/other"},
		"rbd ls --format=":         {"--format=json", "--format=plain", "--format=xml"},
		"rbd info no-such-image":   nil,
		"rbd info nopool/":         nil,
		"rbd feature disable x ex": {"exclusive-lock"},
	} {
		for name, argv := range shells {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			var args []string
			if args = append(slices.Clone(argv[1:]), share, line); name != "fish" {
				args = append(slices.Clone(argv[1:]), name, share, line)
			}
			cmd := ours.cluster.Command(ctx, argv[0], args...)
			cmd.Env = append(cmd.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+folder)
			cmd.Dir = folder
			out, err := cmd.CombinedOutput()
			cancel()
			if err != nil && len(out) == 0 && want != nil {
				t.Fatalf("%s: %v: apt-get install zsh fish", name, err)
			}
			var got []string
			for _, text := range strings.Fields(string(out)) {
				if name == "bash" {
					text = line[strings.LastIndexByte(line, ' ')+1:strings.LastIndexAny(line, "@ =")+1] + text
				}
				got = append(got, text)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s, %q: %q, not %q", name, line, got, want)
			}
		}
	}
}
