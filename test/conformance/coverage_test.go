package conformance

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

var compatibilityFlag = flag.String("compatibility", "", "write what TestCoverage finds to this file: ../../docs/compatibility.md")

// helped is a command as the genuine tool's help has it.
type helped struct {
	name    string
	words   [][]string // its path and its alias
	options map[string][]string
	lines   int             // of testdata that are for it
	given   map[string]bool // options that they give
	ours    bool
}

// Each command that ours has is in a line at least, beyond its help, and so is
// each of its options. What else the genuine tool has is counted.
func TestCoverage(t *testing.T) {
	names := func(program string) []string {
		out, err := exec.Command(program, "help").Output()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		// "    name (alias)  What it does", where the name may fill its column.
		for _, m := range regexp.MustCompile(`(?m)^    ([a-z][a-z -]*(?:\([a-z. -]+\))?)`).FindAllStringSubmatch(string(out), -1) {
			all = append(all, strings.TrimSpace(m[1]))
		}
		return all
	}
	has := names(ours.program)
	var commands []*helped
	for _, n := range names(genuine.program) {
		name, alias, _ := strings.Cut(strings.TrimSuffix(n, ")"), " (")
		h := &helped{name: name, words: [][]string{strings.Fields(name)}, ours: slices.Contains(has, n), given: make(map[string]bool)}
		if last, short := strings.CutPrefix(alias, "... "); short { // another last word
			path := h.words[0]
			h.words = append(h.words, append(path[:len(path)-1:len(path)-1], last))
		} else if alias != "" {
			h.words = append(h.words, strings.Fields(alias))
		}
		commands = append(commands, h)
	}
	var group errgroup.Group
	group.SetLimit(4)
	for _, h := range commands {
		group.Go(func() error {
			out, err := exec.Command(genuine.program, append([]string{"help"}, h.words[0]...)...).Output()
			h.options = helpedOptions(string(out))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	lines := countLines(t, commands)

	var covered, options, given int
	var missing, unused []string
	for _, h := range commands {
		options += len(h.options)
		given += len(h.given)
		switch {
		case h.ours && h.lines == 0:
			t.Errorf("no line in testdata is for rbd %s", h.name)
		case !h.ours:
			missing = append(missing, h.name)
			continue
		}
		covered++
		for _, o := range slices.Sorted(maps.Keys(h.options)) {
			if !h.given[o] {
				t.Errorf("no line in testdata gives rbd %s %s", h.name, o)
				unused = append(unused, h.name+" "+o)
			}
		}
	}
	if covered == 0 || given == 0 {
		t.Fatal("nothing is covered: the help was not understood")
	}
	summary := fmt.Sprintf("%d of %d commands are covered, %d of %d options, by %d lines", covered, len(commands), given, options, lines)
	t.Log(summary)
	if *compatibilityFlag != "" {
		writeCompatibility(t, summary, missing, unused)
	}
}

// helpedOptions are the options in a help text, with their spellings.
func helpedOptions(help string) map[string][]string {
	options := make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^  (?:(-\w) \[ (--[\w-]+) \]|(--[\w-]+))`).FindAllStringSubmatch(help, -1) {
		name := m[2] + m[3]
		options[name] = []string{name}
		if m[1] != "" {
			options[name] = append(options[name], m[1])
		}
	}
	return options
}

// countLines reads the lines of testdata that are compared and gives each to
// the command with the most words of it.
func countLines(t *testing.T, commands []*helped) (lines int) {
	files, err := filepath.Glob(allLines)
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, more...) {
		steps, err := readScript(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			if s.kind != "rbd" && s.kind != "~rbd" {
				continue
			}
			lines++
			if len(s.words) == 0 || s.words[0] == "help" {
				continue
			}
			if h := commandOf(commands, s.words); h != nil {
				h.lines++
				for option, spellings := range h.options {
					for _, w := range s.words {
						name, _, _ := strings.Cut(w, "=")
						h.given[option] = h.given[option] || slices.Contains(spellings, name)
					}
					if !h.given[option] {
						delete(h.given, option)
					}
				}
			}
		}
	}
	return lines
}

// commandOf finds the command that a line is for. Options can stand before it.
func commandOf(commands []*helped, words []string) (found *helped) {
	for at := range words {
		long := 0
		for _, h := range commands {
			for _, path := range h.words {
				if len(path) > long && at+len(path) <= len(words) && slices.Equal(path, words[at:at+len(path)]) {
					found, long = h, len(path)
				}
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

func writeCompatibility(t *testing.T, summary string, missing, unused []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Compared with the genuine rbd\n\n"+
		"Written by `go test -tags pacific ./test/conformance -run TestCoverage -compatibility ../../docs/compatibility.md`.\n"+
		"test/conformance runs each line through the genuine rbd of Ceph %s and ours, and compares stdout, stderr, exit code and what the pool holds.\n"+
		"test/matrix does so with most of them, and with what those brought, on Ceph 18 and 20.\n\n%s.\n", oldest, summary)
	list := func(title string, items []string) {
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		if len(items) == 0 {
			b.WriteString("None.\n")
		}
		for _, i := range items {
			fmt.Fprintf(&b, "- `rbd %s`\n", i)
		}
	}
	list("Commands that are missing", missing)
	list("Options that no line gives", unused)
	files, err := filepath.Glob("testdata/allowed*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		release := strings.TrimPrefix(filepath.Ext(file), ".")
		if release == "" {
			release = oldest
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n## What may differ from Ceph %s\n", release)
		before := ""
		if !strings.Contains(string(data), "\n\n") {
			b.WriteString("\nNothing.\n")
		}
		for _, line := range strings.Split(string(data), "\n") {
			reason, comment := strings.CutPrefix(line, "# ")
			switch {
			case comment && strings.HasPrefix(line, "# Lines that may differ"):
			case comment && before != "comment":
				b.WriteString("\n" + reason + "\n")
				before = "comment"
			case comment:
				b.WriteString(reason + "\n")
			case line != "":
				if before == "comment" {
					b.WriteString("\n")
				}
				b.WriteString("- `" + line + "`\n")
				before = "line"
			}
		}
	}
	if err := os.WriteFile(*compatibilityFlag, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
