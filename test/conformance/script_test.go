package conformance

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// step is one line of a file in testdata.
type step struct {
	number  int
	text    string
	kind    string
	words   []string
	stdin   string // file name
	keep    string // the variable that stdout becomes
	content string // of a file
}

// readScript reads a file of lines. README.md is the description.
func readScript(path string) ([]step, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var steps []step
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		words, err := splitWords(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		s := step{number: number, text: text, kind: words[0], words: words[1:]}
		if n := len(s.words); n > 2 && s.words[n-2] == "<" {
			s.stdin, s.words = s.words[n-1], s.words[:n-2]
		}
		if n := len(s.words); n > 2 && s.words[n-2] == ">" {
			s.keep, s.words = s.words[n-1], s.words[:n-2]
		}
		switch s.kind {
		case "rbd", "~rbd", "unwatch":
		case "setup", "check":
			if len(s.words) == 0 || s.words[0] != "rbd" {
				return nil, fmt.Errorf("%s:%d: %s is followed by a line that begins with rbd", path, number, s.kind)
			}
			s.words = s.words[1:]
		case "same":
			if len(s.words) != 1 {
				return nil, fmt.Errorf("%s:%d: same NAME", path, number)
			}
		case "env":
			name, value, ok := strings.Cut(strings.Join(s.words, " "), "=")
			if !ok {
				return nil, fmt.Errorf("%s:%d: env NAME=VALUE", path, number)
			}
			s.words = []string{name, value}
		case "client":
			if len(s.words) != 2 {
				return nil, fmt.Errorf("%s:%d: client IMAGE NAME", path, number)
			}
		case "lose":
			if len(s.words) != 1 {
				return nil, fmt.Errorf("%s:%d: lose IMAGE", path, number)
			}
		case "mon":
			if len(s.words) != 1 {
				return nil, fmt.Errorf("%s:%d: mon JSON", path, number)
			}
		case "watch":
			if len(s.words) == 0 {
				return nil, fmt.Errorf("%s:%d: watch IMAGE", path, number)
			}
		case "random":
			if len(s.words) != 3 {
				return nil, fmt.Errorf("%s:%d: random NAME BYTES SEED", path, number)
			}
		case "file":
			if len(s.words) != 2 {
				return nil, fmt.Errorf("%s:%d: file NAME CONTENT", path, number)
			}
			s.content, s.words = s.words[1], s.words[:1]
		default:
			return nil, fmt.Errorf("%s:%d: unknown word %q", path, number, s.kind)
		}
		steps = append(steps, s)
	}
	return steps, lines.Err()
}

// splitWords cuts a line at spaces. What is in quotes belongs together; in
// double quotes \n, \t, \" and \\ mean what they do in Go.
func splitWords(text string) ([]string, error) {
	var words []string
	for text = strings.TrimLeft(text, " \t"); text != ""; text = strings.TrimLeft(text, " \t") {
		var word strings.Builder
		for text != "" && text[0] != ' ' && text[0] != '\t' {
			switch text[0] {
			case '\'':
				end := strings.IndexByte(text[1:], '\'')
				if end < 0 {
					return nil, fmt.Errorf("a quote is open: %s", text)
				}
				word.WriteString(text[1 : 1+end])
				text = text[2+end:]
			case '"':
				text = text[1:]
				for {
					if text == "" {
						return nil, fmt.Errorf("a quote is open")
					}
					char := text[0]
					text = text[1:]
					if char == '"' {
						break
					}
					if char == '\\' && text != "" {
						char, text = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '\\': '\\', '"': '"'}[text[0]], text[1:]
					}
					word.WriteByte(char)
				}
			default:
				word.WriteByte(text[0])
				text = text[1:]
			}
		}
		words = append(words, word.String())
	}
	return words, nil
}

// randomData is the same for the same seed: bytes with ranges of zeros between
// them, many of them small and some of them larger than objects.
func randomData(size, seed string) ([]byte, error) {
	n, err := strconv.Atoi(size)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(number, 0))
	data := make([]byte, n)
	for at := 0; at < n; {
		end := min(n, at+1+r.IntN(1<<(4+r.IntN(18))))
		for ; at < end; at++ {
			data[at] = byte(r.Uint32())
		}
		at += r.IntN(1 << (8 + r.IntN(15)))
	}
	return data, nil
}

var variable = regexp.MustCompile(`\$[A-Z_0-9]+`)

func expand(text string, vars map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		if value, ok := vars[name[1:]]; ok {
			return value
		}
		return name
	})
}

// logLine is a line of librados' own log. It comes from a thread of its own, in
// several pieces, and may stand in the middle of another line.
var logLine = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+[+-]\d{4} [0-9a-f]+ +-?\d+ (auth: failed to decode key '[^']*'|[^\n]*)\n`)

// What cannot be the same twice, and what it is replaced by.
var normalising = []struct {
	what *regexp.Regexp
	by   string
}{
	// Only ours has hints.
	{regexp.MustCompile(`(?m)^hint: .*\n`), ""},
	// Said by the genuine tool where there is no ceph.conf, even if all is well.
	{regexp.MustCompile(`(?m)^did not load config file, using default settings\.\n`), ""},
	// Ours does not ask modinfo before modprobe, whose answer is the same.
	{regexp.MustCompile(`(?m)^modinfo: ERROR: .*\n`), ""},
	// A benchmark's numbers.
	{regexp.MustCompile(`(?m)^ +\d+ +\d+ +[0-9.e+]+ +[0-9.]+ [KMGTE]?i?B/s\n`), ""},
	{regexp.MustCompile(`(elapsed: )\d+`), "${1}N"},
	{regexp.MustCompile(`(ops/sec: |bytes/sec: |(read|write)_(ops|ops/sec|bytes/sec): )(-?nan|inf|[0-9.e+]+)( [KMGTE]?i?B/s)?`), "${1}N"},
	// How often progress is shown depends on the time that things take.
	{regexp.MustCompile(`(\r[^\r\n]*complete\.\.\.)+(\r[^\r\n]*complete\.\.\.)`), "$2"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`("id": ?"|\bid: |\(child missing \d+/(?:n/)?|<(?:group_)?id>|rbd_data\.(?:\d+\.)?|_id": ?")[0-9a-f]{6,}`), "${1}ID"},
	{regexp.MustCompile(`rb\.\d+\.[0-9a-f]+\.[0-9a-f]+`), "rb.ID"},
	{regexp.MustCompile(`(\bjournal"?: ?"?|<journal>|<journal_id>|_image_id>|\()[0-9a-f]{6,}`), "${1}ID"},
	// Ids have different lengths, which the next column follows.
	{regexp.MustCompile(`(?m)^[0-9a-f]{10,} +`), "ID "},
	{regexp.MustCompile(`(?m)^ID +NAME`), "ID NAME"},
	// A slow monitor is asked twice for the id of a snapshot, and then gives the next.
	{regexp.MustCompile(`(?m)^ *\d+  \.group\.`), "SNAPID  .group."},
	// The snapshots of a group's images are made side by side.
	{regexp.MustCompile(`("image_name": "[^"]*",\s*"snap_id": |<image_name>[^<]*</image_name>\s*<snap_id>|\(snap id: )\d+`), "${1}N"},
	{regexp.MustCompile(`\.group\.[0-9a-f]+_[0-9a-f]+_[0-9a-f]+`), ".group.ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d{4}`), "TIME"},
	{regexp.MustCompile(`(journal(_data\.\d+)?\.|rbd journal ')[0-9a-f]{6,}`), "${1}ID"},
	{regexp.MustCompile(`client\.\d+`), "client.N"},
	{regexp.MustCompile(`("client": ?)\d+`), "${1}N"},
	{regexp.MustCompile(`<client>\d+`), `<client>N`},
	{regexp.MustCompile(`(cookie"?[=:>] ?)\d+`), "${1}N"},
	{regexp.MustCompile(`:0/\d+`), ":0/N"},
	{regexp.MustCompile(`(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}`), "TIME"},
}

// normal takes out of a text what differs from run to run.
func normal(text string, vars map[string]string) string {
	text = logLine.ReplaceAllString(text, "")
	for _, n := range normalising {
		text = n.what.ReplaceAllString(text, n.by)
	}
	for _, name := range []string{"KEY", "KUBE_KEY", "NONE_KEY", "DIR"} {
		text = strings.ReplaceAll(text, vars[name], "$"+name)
	}
	// The folder of a cluster.
	return strings.ReplaceAll(text, strings.TrimSuffix(vars["CONF"], "/ceph.conf"), "$CLUSTER")
}

var spaces = regexp.MustCompile(` +`)

// squeezed makes one space of many and none of those at the end of a line, for
// tables whose widths follow numbers that differ from run to run.
func squeezed(text string) string {
	return strings.ReplaceAll(spaces.ReplaceAllString(text, " "), " \n", "\n")
}

// allowance is a line that may differ.
type allowance struct {
	line string
	seen bool
}

type allowances []*allowance

// readAllowed reads the lines that may differ. Each has to have a comment
// before it: why it may.
func readAllowed(path string) (allowances, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all allowances
	reason := false
	for _, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			reason = false
		case strings.HasPrefix(line, "#"):
			reason = true
		case !reason:
			return nil, fmt.Errorf("%s: no reason is given for %q", path, line)
		default:
			all = append(all, &allowance{line: line})
		}
	}
	return all, nil
}

func (all allowances) allow(line string) bool {
	for _, a := range all {
		if a.line == line {
			a.seen = true
			return true
		}
	}
	return false
}

func (all allowances) used() (n int) {
	for _, a := range all {
		if a.seen {
			n++
		}
	}
	return n
}

// flagRun is go test's -run.
func flagRun() string { return flag.Lookup("test.run").Value.String() }

// registerJournalClient makes a client of an image's journal, as rbd-mirror
// does: one that has seen nothing yet, for which everything is kept.
const registerJournalClient = `
import rados, struct, sys
with rados.Rados(conffile=sys.argv[1]) as cluster, cluster.open_ioctx("rbd") as io:
    id = io.execute("rbd_directory", "rbd", "dir_get_id", struct.pack("<I", len(sys.argv[2])) + sys.argv[2].encode())[1]
    id = id[4:4 + struct.unpack("<I", id[:4])[0]].decode()
    name = sys.argv[3].encode()
    io.execute("journal." + id, "journal", "client_register", struct.pack("<I", len(name)) + name + struct.pack("<I", 0))
`

func (s *side) journalClient(image, name string) error {
	out, err := s.cluster.Command(context.Background(), "/usr/bin/python3", "-c", registerJournalClient, s.cluster.Conf(), image, name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("registering a client of a journal: %w: %s", err, out)
	}
	return nil
}

// loseObject removes the first data object of an image, and says nothing to its
// object map.
const loseObject = `
import rados, struct, sys
with rados.Rados(conffile=sys.argv[1]) as cluster, cluster.open_ioctx("rbd") as io:
    id = io.execute("rbd_directory", "rbd", "dir_get_id", struct.pack("<I", len(sys.argv[2])) + sys.argv[2].encode())[1]
    id = id[4:4 + struct.unpack("<I", id[:4])[0]].decode()
    io.remove_object("rbd_data." + id + ".0000000000000000")
`

func (s *side) lose(image string) error {
	out, err := s.cluster.Command(context.Background(), "/usr/bin/python3", "-c", loseObject, s.cluster.Conf(), image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("removing an object of an image: %w: %s", err, out)
	}
	return nil
}

// watch is a client that has an image open.
type watch struct{ cmd *exec.Cmd }

// watch opens an image with the genuine tool and waits until it is open.
func (s *side) watch(words []string) error {
	cmd := s.cluster.Command(context.Background(), genuine.program, append([]string{"watch"}, words...)...)
	stdin, err := cmd.StdinPipe() // it ends when it can read a line, or nothing more
	if err != nil {
		return err
	}
	_ = stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.watches = append(s.watches, &watch{cmd.Cmd})
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		if !lines.Scan() {
			ready <- fmt.Errorf("rbd watch %q did not begin", words)
		}
		ready <- nil
		for lines.Scan() {
		}
	}()
	select {
	case err := <-ready:
		return err
	case <-time.After(20 * time.Second):
		return fmt.Errorf("rbd watch %q does not begin", words)
	}
}

func (s *side) endWatches() {
	for _, w := range s.watches {
		_ = w.cmd.Process.Signal(syscall.SIGINT)
		_ = w.cmd.Wait()
	}
	s.watches = nil
}
