// Package docs checks the blocks of commands and settings in the project's
// documents: that commands are there, take the options that they are given and
// can be read by a shell; that settings are such as are read by what they are
// for. What can be run on a cluster is run.
//
// It does not check prose.
package docs

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
	"mvdan.cc/sh/v3/syntax"

	"github.com/opt-rbd/opt-rbd/internal/launch"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

const module = "../.."

// A block is what stands between two lines of ``` in a document.
type block struct {
	at       string // FILE:LINE
	language string
	text     string
}

func blocks(t *testing.T) (list []block) {
	t.Helper()
	out, err := exec.Command("git", "-C", module, "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			t.Fatal(err)
		}
		var b *block
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			fence, ok := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case ok && b == nil:
				b = &block{at: fmt.Sprintf("%s:%d", name, n), language: fence}
			case ok:
				list = append(list, *b)
				b = nil
			case b != nil:
				b.text += line
			}
		}
		if b != nil {
			t.Errorf("%s: the block has no end", b.at)
		}
	}
	return list
}

func TestBlocks(t *testing.T) {
	counts := map[string]int{}
	for _, b := range blocks(t) {
		counts[b.language]++
		var err error
		switch b.language {
		case "sh":
			err = commands(t, b)
		case "yaml":
			err = readYAML(b.text)
		case "go":
			_, err = parser.ParseFile(token.NewFileSet(), b.at, "package p\nfunc _() {\n"+b.text+"\n}", 0)
		case "ini":
			err = launcherConf(t, b.text)
		case "text", "":
			if m := looksLikeCommand.FindString(b.text); m != "" {
				err = fmt.Errorf("say that the block is sh, or that it is text: it has %q", m)
			}
		default:
			err = fmt.Errorf("the block's language %q is none of sh, yaml, go, ini (launcher.conf) and text", b.language)
		}
		if err != nil {
			t.Errorf("%s: %v", b.at, err)
		}
	}
	t.Logf("blocks checked: %v", counts)
	if counts["sh"] < 5 {
		t.Error("there are hardly any commands: are the documents where they were?")
	}
}

// looksLikeCommand finds what a reader would run.
var looksLikeCommand = regexp.MustCompile(`(?m)^(sudo|make|go|docker|podman|kubectl|systemctl|ceph|rbd (map|unmap|ls|create|status)|\./installer) .*`)

// readYAML refuses what has a key twice or is no YAML.
func readYAML(text string) error {
	var v any
	return yaml.Unmarshal([]byte(text), &v)
}

func launcherConf(t *testing.T, text string) error {
	name := filepath.Join(t.TempDir(), "launcher.conf")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	c, err := launch.ReadConfig(name)
	if err == nil && c == (launch.Config{}) {
		err = fmt.Errorf("it sets nothing")
	}
	return err
}

// commands checks every command of a block.
func commands(t *testing.T, b block) (err error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(b.text), b.at)
	if err != nil {
		return err
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 || err != nil {
			return err == nil
		}
		var words []string
		for _, w := range call.Args {
			words = append(words, literal(w))
		}
		if e := command(t, words); e != nil {
			err = fmt.Errorf("%s: %w", strings.Join(words, " "), e)
		}
		return true
	})
	return err
}

// literal is the text of a word as far as no expansion is needed.
func literal(w *syntax.Word) string {
	var b strings.Builder
	syntax.Walk(w, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Lit:
			b.WriteString(n.Value)
		case *syntax.SglQuoted:
			b.WriteString(n.Value)
		}
		return true
	})
	return b.String()
}

// command checks one command by its name.
func command(t *testing.T, words []string) error {
	name, args := words[0], words[1:]
	switch filepath.Base(name) {
	case "sudo":
		return command(t, args)
	case "make":
		return makeTarget(args)
	case "go":
		return goCommand(args)
	case "installer":
		return installer(args)
	case "rbd":
		return rbd(t, args)
	case "docker", "podman":
		// Its own options end where the image's name stands.
		if i := slices.Index(args, "ceph-common"); i > 0 {
			if i+1 < len(args) {
				if err := command(t, args[i+1:]); err != nil {
					return err
				}
			}
			args = args[:i]
		}
		return flags(name, 1, args)
	case "nsenter":
		for i, a := range args {
			if !strings.HasPrefix(a, "-") {
				return errorsJoin(flags(name, 0, args[:i]), command(t, args[i:]))
			}
		}
		return flags(name, 0, args)
	case "systemctl", "systemd-sysext", "tar", "mkdir", "mount", "umount", "cp", "ln", "ctr":
		return flags(name, 0, args)
	case "build": // image/build
		if _, err := os.Stat(filepath.Join(module, name)); err != nil {
			return err
		}
		return nil
	case "ceph":
		return onCluster(t, name, args)
	case "export", "cd", "echo", "cat", "sed":
		return nil
	case "cosign", "kubectl", "butane", "semanage":
		return nil // not on the machine of the tests
	}
	return fmt.Errorf("the test knows no command %s", name)
}

func errorsJoin(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

var makefile = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile(filepath.Join(module, "Makefile"))
	return string(text), err
})

// makeTarget: targets and variables are the Makefile's.
func makeTarget(args []string) error {
	text, err := makefile()
	if err != nil {
		return err
	}
	for _, a := range args {
		want := `(?m)^` + regexp.QuoteMeta(a) + `:`
		if name, _, ok := strings.Cut(a, "="); ok {
			want = `\b` + regexp.QuoteMeta(name) + `\b`
		}
		if !regexp.MustCompile(want).MatchString(text) {
			return fmt.Errorf("the Makefile has no %s", a)
		}
	}
	return nil
}

var labUsage = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "run", "../lab").CombinedOutput()
	if !strings.Contains(string(out), "usage: ") {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
})

// goCommand: packages are there, and the lab knows its words.
func goCommand(args []string) error {
	for i, a := range args {
		dir, ok := strings.CutPrefix(a, "./")
		if !ok {
			continue
		}
		if dir != "..." {
			if _, err := os.Stat(filepath.Join(module, dir)); err != nil {
				return err
			}
		}
		if dir != "test/lab" {
			return nil
		}
		usage, err := labUsage()
		for _, word := range args[i+1:] {
			if err == nil && !regexp.MustCompile(`(?m)(^  |--|\[)`+regexp.QuoteMeta(strings.TrimLeft(word, "-"))+`\b`).MatchString(usage) {
				err = fmt.Errorf("the lab knows no %s", word)
			}
		}
		return err
	}
	return nil
}

// installer reads its options before it shows its help.
func installer(args []string) error {
	out, err := exec.Command(module+"/bin/installer", append(args, "--help")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if !strings.Contains(string(out), "USAGE:") {
		return fmt.Errorf("no such command: %s", out)
	}
	return nil
}

var lab = sync.OnceValues(func() (*cluster.Cluster, error) {
	c, err := cluster.New(context.Background(), cluster.Options{})
	if err != nil {
		return nil, err
	}
	if r := c.Rbd("create", "disk", "--size", "1G"); r.Code != 0 {
		return nil, fmt.Errorf("rbd create: %s", r.Stderr)
	}
	return c, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if c, err := lab(); err == nil {
		_ = c.Close()
	}
	os.Exit(code)
}

// rbd is run: what needs no device has to succeed, in a pool that has the image
// disk.
func rbd(t *testing.T, args []string) error {
	if slices.Contains(args, "map") || slices.Contains(args, "unmap") {
		args = append([]string{"help"}, args[0]) // a device needs a node: see test/node
	}
	program, err := filepath.Abs(module + "/bin/payload/usr/bin/rbd")
	if err != nil {
		return err
	}
	return onCluster(t, program, args)
}

func onCluster(t *testing.T, program string, args []string) error {
	c, err := lab()
	if err != nil {
		return err
	}
	if out, err := c.Command(t.Context(), program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// flags looks for the options of a program in its own help; the first words of
// args are its commands.
func flags(name string, commands int, args []string) error {
	help := []string{"--help"}
	if commands > 0 && len(args) >= commands {
		help = append(slices.Clone(args[:commands]), "--help")
		args = args[commands:]
	}
	out, _ := exec.Command(name, help...).CombinedOutput()
	if len(out) == 0 {
		return fmt.Errorf("%s says nothing of its options: is it installed? see scripts/deps", name)
	}
	for _, a := range args {
		option, _, _ := strings.Cut(a, "=")
		if !strings.HasPrefix(option, "-") || option == "-" || option == "--" {
			continue
		}
		if !regexp.MustCompile(`(^|[\s,\[])` + regexp.QuoteMeta(option) + `($|[\s,=\[\]|])`).Match(out) {
			if !strings.HasPrefix(option, "--") && len(option) > 2 {
				if err := letters(option, out); err == nil {
					continue
				}
			}
			return fmt.Errorf("%s has no option %s", name, option)
		}
	}
	return nil
}

// letters are options of one letter each, written together.
func letters(option string, help []byte) error {
	for _, c := range option[1:] {
		if !regexp.MustCompile(`(^|[\s,])-` + regexp.QuoteMeta(string(c)) + `\b`).Match(help) {
			return fmt.Errorf("no option -%c", c)
		}
	}
	return nil
}
