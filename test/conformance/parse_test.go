package conformance

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/cli"
)

// TestReading makes lines from the declarations of the commands and noise, and
// compares what both tools say to them. Every run makes the same lines, few
// enough for every day; RBD_LINES=5000 makes more, and others with RBD_SEED.
func TestReading(t *testing.T) {
	lines, seed := number("RBD_LINES", 150), number("RBD_SEED", 1)
	// Schedules and statistics are the mgr's, which both tools would wait for: this cluster has none. TestMgrLines reads
	// their lines. "nbd map" is one that the genuine tool crashes on.
	commands := slices.DeleteFunc(cli.Declarations(), func(c *args.Command) bool {
		return slices.Contains(c.Path, "schedule") || c.Path[0] == "perf" || slices.Equal(c.Path, []string{"nbd", "map"})
	})
	random := &maker{Rand: rand.New(rand.NewPCG(uint64(seed), 0)), commands: commands}
	both(t, func(s *side) (answer, error) { return answer{}, s.emptyPool() })
	differences := 0
	for range lines {
		words := random.line()
		g, o := both(t, func(s *side) (answer, error) {
			s.env = map[string]string{}
			return s.run(s.program, words, "")
		})
		if diff := compare(g, o, true); diff != "" {
			differences++
			t.Errorf("rbd %q\n%s", words, diff)
		}
	}
	t.Logf("%d lines made with seed %d, %d differences", lines, seed, differences)
}

func number(name string, standard int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return standard
}

type maker struct {
	*rand.Rand
	commands []*args.Command
}

func (m *maker) pick(words ...string) string { return words[m.IntN(len(words))] }

// line is a command with some of its options and operands, in any order, and
// now and then something that does not belong there. No line names an image
// that exists, so nothing happens whatever it asks for.
func (m *maker) line() []string {
	c := m.commands[m.IntN(len(m.commands))]
	name := c.Path
	if n := len(c.Aliases); n > 0 && m.IntN(2) == 0 {
		name = c.Aliases[m.IntN(n)]
	}
	var parts [][]string // what stays together
	for _, word := range name {
		parts = append(parts, []string{word})
	}
	for _, o := range c.Operands {
		if m.IntN(3) > 0 {
			parts = append(parts, []string{m.operand(o)})
		}
	}
	for range m.IntN(4) {
		if len(c.Options) > 0 {
			parts = append(parts, m.option(c.Options[m.IntN(len(c.Options))]))
		}
	}
	if m.IntN(3) == 0 {
		parts = append(parts, m.noise())
	}
	// The command's words keep their order, all else goes anywhere.
	for i := len(name); i < len(parts); i++ {
		if m.IntN(2) == 0 {
			j := m.IntN(i + 1)
			part := parts[i]
			copy(parts[j+1:i+1], parts[j:i])
			parts[j] = part
		}
	}
	var line []string
	for _, p := range parts {
		line = append(line, p...)
	}
	return line
}

func (m *maker) operand(o args.Operand) string {
	return m.pick("none", "rbd/none", "none@s", "rbd/nons/none", "nopool/none", "a@b@c", "@", "", "x/", "/x", "layering", "rbd/none@s")
}

func (m *maker) option(o args.Option) []string {
	name := "--" + o.Name
	if o.Short != "" && m.IntN(2) == 0 {
		name = "-" + o.Short
	}
	if o.Arg == "" {
		return []string{m.pick(name, name, name, name+"=1", name+"x")}
	}
	value := m.value(o)
	switch m.IntN(8) {
	case 0:
		return []string{name}
	case 1:
		return []string{name + "="}
	case 2, 3:
		return []string{name + "=" + value}
	case 4:
		return []string{name + value}
	}
	return []string{name, value}
}

func (m *maker) value(o args.Option) string {
	if m.IntN(4) == 0 {
		return m.pick("", "-", "--", "-1", "x", "-l", "--pool", "a b", "é", "0x10", "1e3", "99999999999999999999")
	}
	switch {
	case o.Name == "format":
		return m.pick("plain", "json", "xml", "yaml")
	case strings.Contains(o.Name, "size"):
		return m.pick("1", "4K", "1M", "1G", "1.5M", "1X", "m", "16777216T")
	case strings.Contains(o.Name, "pool"):
		return m.pick("rbd", "nopool")
	case strings.Contains(o.Name, "feature"):
		return m.pick("layering", "exclusive-lock,object-map", "bogus", ",")
	case o.Name == "device-type":
		return m.pick("krbd", "bogus")
	}
	return m.pick("none", "1", "rbd/none", "1024")
}

func (m *maker) noise() []string {
	switch m.IntN(8) {
	case 0:
		return []string{m.pick("--bogus", "-x", "--bogus=1", "-xyz")}
	case 1:
		return []string{m.pick("--bogus", "-x"), "y"}
	case 2:
		return []string{"--"}
	case 3:
		return []string{m.pick("more", "-", "", "help", "ls")}
	case 4:
		return []string{m.pick("-h", "--help")}
	case 5:
		return []string{m.pick("--debug-ms", "--debug_rbd", "--rbd_cache"), "0"}
	case 6:
		return []string{"--debug-ms=0"}
	}
	return []string{m.pick("-n", "--id", "-k", "--cluster", "-m")}
}
