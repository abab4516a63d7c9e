package conformance

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	udiff "github.com/aymanbagabas/go-udiff"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// side is one of the two tools, with a cluster and a folder of its own.
type side struct {
	name    string
	program string
	cluster *cluster.Cluster
	dir     string
	env     map[string]string
	kept    map[string]string // what lines of setup have put into variables
	watches []*watch
}

var genuine, ours *side

func TestMain(m *testing.M) { os.Exit(run(m)) }

// programFlag is for where there is no compiler: see test/matrix.
var programFlag = flag.String("program", "", "compare this rbd instead of building one")

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, err := build(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	genuine = &side{name: "genuine", program: "/usr/bin/rbd"}
	ours = &side{name: "ours", program: program}
	for _, s := range []*side{genuine, ours} {
		if err := s.start(filepath.Join(dir, s.name), cluster.Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer s.cluster.Close()
	}
	return m.Run()
}

// build gives the rbd that is compared.
func build(dir string) (string, error) {
	if *programFlag != "" {
		return filepath.Abs(*programFlag)
	}
	program := filepath.Join(dir, "rbd")
	out, err := exec.Command("go", "build", "-tags", "pacific", "-o", program, "github.com/opt-rbd/opt-rbd/cmd/rbd").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return program, err
}

// start gives a side its folder and its cluster.
func (s *side) start(dir string, o cluster.Options) (err error) {
	s.dir, s.env = dir, map[string]string{}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.cluster, err = cluster.New(ctx, o); err != nil {
		return err
	}
	if _, err := s.cluster.AddUser("client.kube", "mon", "profile rbd", "osd", "profile rbd pool=rbd"); err != nil {
		return err
	}
	_, err = s.cluster.AddUser("client.none", "mon", "allow r")
	return err
}

// emptyFolder makes the folder where the lines run anew.
func (s *side) emptyFolder() error {
	return errors.Join(os.RemoveAll(s.dir), os.Mkdir(s.dir, 0o755))
}

// emptyPool makes the pool rbd anew.
func (s *side) emptyPool() error {
	for _, command := range []string{
		`{"prefix": "osd pool delete", "pool": "rbd", "pool2": "rbd", "yes_i_really_really_mean_it": true}`,
		`{"prefix": "osd pool create", "pool": "rbd", "pg_num": 8}`,
		`{"prefix": "osd pool application enable", "pool": "rbd", "app": "rbd"}`,
	} {
		if _, err := s.cluster.MonCommand(command); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// fresh gives the side an empty pool and an empty folder, and runs lines of the
// genuine tool there.
func (s *side) fresh(t *testing.T, lines ...string) {
	t.Helper()
	if err := errors.Join(s.emptyFolder(), s.emptyPool()); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if r := s.cluster.Rbd(strings.Fields(line)...); r.Code != 0 {
			t.Fatal(line, ": ", r.Stderr)
		}
	}
}

// vars are what $NAME stands for in a line. The clusters have the same
// address, so only the keys differ.
func (s *side) vars() (map[string]string, error) {
	vars := map[string]string{
		"MON": s.cluster.MonV1(), "MON2": s.cluster.MonV2(), "ADDR": s.cluster.Addr(),
		"CONF":         s.cluster.Conf(),
		"KEYRING":      s.cluster.Keyring("client.admin"),
		"KUBE_KEYRING": s.cluster.Keyring("client.kube"),
		"NONE_KEYRING": s.cluster.Keyring("client.none"),
		"DIR":          s.dir,
	}
	for name, user := range map[string]string{"KEY": "client.admin", "KUBE_KEY": "client.kube", "NONE_KEY": "client.none"} {
		key, err := s.cluster.Secret(user)
		if err != nil {
			return nil, err
		}
		vars[name] = key
	}
	maps.Copy(vars, s.kept)
	return vars, nil
}

// answer is what a line made of a tool.
type answer struct {
	stdout, stderr string
	raw            string // stdout as it was
	code           int
	logged         bool // librados' log was in stderr
	took           time.Duration
}

// run runs a program with the words of a line, at most for half a minute.
func (s *side) run(program string, words []string, stdin string) (answer, error) {
	vars, err := s.vars()
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var args []string
	for _, w := range words {
		args = append(args, expand(w, vars))
	}
	cmd := s.cluster.Command(ctx, program, args...)
	cmd.Args[0] = "rbd"
	cmd.Dir = s.dir
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+expand(value, vars))
	}
	if stdin != "" {
		f, err := os.Open(filepath.Join(s.dir, stdin))
		if err != nil {
			return answer{}, err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if s == ours && program == s.program {
		err = runWatched(cmd, []string{vars["KEY"], vars["KUBE_KEY"], vars["NONE_KEY"]})
	} else {
		err = cmd.Run()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return answer{}, fmt.Errorf("%s %q: %w", program, words, errors.Join(err, ctx.Err()))
	}
	return answer{
		stdout: normal(stdout.String(), vars),
		raw:    stdout.String(),
		stderr: normal(stderr.String(), vars),
		code:   cmd.ProcessState.ExitCode(),
		logged: logLine.MatchString(stderr.String()),
		took:   time.Since(began),
	}, nil
}

func (a answer) String() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s--- stderr\n%s", a.code, a.stdout, a.stderr)
}

// errHung is what both panics with where the genuine tool alone does not end:
// now and then it locks itself up, in journal import. testFiles then plays the
// file once more.
var errHung = errors.New("the genuine tool hangs")

// replaying says that somebody is there to catch errHung.
var replaying bool

// hangs runs something and says whether the genuine tool hung in it.
func hangs(do func()) (hung bool) {
	replaying = true
	defer func() {
		replaying = false
		switch r := recover(); r {
		case nil:
		case errHung:
			hung = true
		default:
			panic(r)
		}
	}()
	do()
	return false
}

// both runs a line on both sides at once.
func both(t *testing.T, do func(s *side) (answer, error)) (g, o answer) {
	t.Helper()
	type result struct {
		answer
		err error
	}
	other := make(chan result, 1)
	go func() {
		a, err := do(ours)
		other <- result{a, err}
	}()
	g, err := do(genuine)
	r := <-other
	if replaying && r.err == nil && errors.Is(err, context.DeadlineExceeded) {
		panic(errHung)
	}
	if err := errors.Join(err, r.err); err != nil {
		t.Fatal(err)
	}
	return g, r.answer
}

// compare tells how the answers differ, "" if they do not.
func compare(g, o answer, squeeze bool) string {
	if g.logged || o.logged {
		// Newlines of the log can stand anywhere.
		g.stderr = strings.ReplaceAll(g.stderr, "\n", "")
		o.stderr = strings.ReplaceAll(o.stderr, "\n", "")
	}
	left, right := g.String(), o.String()
	if squeeze {
		left, right = squeezed(left), squeezed(right)
	}
	return udiff.Unified("genuine", "ours", left, right)
}

const allLines = "testdata/*.txt"

func TestLines(t *testing.T) { testFiles(t, allLines) }

// What came after the oldest release is compared where it is: by test/matrix.
func TestNewerLines(t *testing.T) {
	r := release(t)
	for _, since := range []string{"18", "20"} {
		if since <= r {
			t.Run(since, func(t *testing.T) { testFiles(t, "testdata/"+since+"/*.txt") })
		}
	}
}

// What a mgr answers is compared on clusters that have one.
func TestMgrLines(t *testing.T) {
	g, o := genuine, ours
	defer func() { genuine, ours = g, o }()
	genuine, ours = &side{name: g.name, program: g.program}, &side{name: o.name, program: o.program}
	dir := t.TempDir()
	for _, s := range []*side{genuine, ours} {
		if err := s.start(filepath.Join(dir, s.name), cluster.Options{Mgr: true}); err != nil {
			t.Fatal(err)
		}
		defer s.cluster.Close()
	}
	testFiles(t, "testdata/mgr/*.txt")
	t.Run("perf of a busy image", testPerf)
}

func testFiles(t *testing.T, pattern string) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal("no lines in testdata: ", err)
	}
	allowed, err := readAllowed("testdata/allowed")
	if err != nil {
		t.Fatal(err)
	}
	if r := release(t); r != oldest {
		more, err := readAllowed("testdata/allowed." + r)
		if err != nil {
			t.Fatal(err)
		}
		allowed = append(allowed, more...)
	}
	var count struct{ lines, differences int }
	complete := true
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		ran := t.Run(name, func(t *testing.T) {
			steps, err := readScript(file)
			if err != nil {
				t.Fatal(err)
			}
			once := func() {
				play(t, steps, func(st step, diff string) {
					count.lines++
					if diff == "" {
						return
					}
					count.differences++
					if !allowed.allow(st.text) {
						t.Errorf("line %d: %s\n%s", st.number, st.text, diff)
					}
				})
			}
			if hangs(once) {
				t.Log(errHung, "and the file is played once more")
				if hangs(once) {
					t.Fatal(errHung, "again")
				}
			}
		})
		complete = complete && ran
	}
	t.Logf("%d lines compared, %d differences, of them %d allowed", count.lines, count.differences, allowed.used())
	// Only a whole run can tell that a difference is gone; none is allowed
	// where there is a mgr.
	if complete && flagRun() == "" && pattern == allLines {
		for _, a := range allowed {
			if !a.seen {
				t.Errorf("allowed difference that does not occur any more: %s", a.line)
			}
		}
	}
}

// oldest is the release that ours is written after; what newer ones say
// otherwise stands in testdata/allowed.RELEASE.
const oldest = "16"

// release is the major version of the Ceph that is compared with.
func release(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(genuine.program, "--version").Output()
	version, ok := strings.CutPrefix(string(out), "ceph version ")
	major, _, dotted := strings.Cut(version, ".")
	if err != nil || !ok || !dotted {
		t.Fatalf("rbd --version: %q, %v", out, err)
	}
	return major
}

var idMember = regexp.MustCompile(`"id":"([0-9a-f]+)"`)

// kept is what a line's output is kept as: the id in it where it is of an
// image and JSON.
func kept(raw string) string {
	if id := idMember.FindStringSubmatch(raw); id != nil {
		return id[1]
	}
	return strings.TrimSpace(raw)
}

// play runs the steps of one file on both sides, and tells of each line that
// is compared how the answers differ, "" if they do not.
func play(t *testing.T, steps []step, compared func(step, string)) {
	both(t, func(s *side) (answer, error) { return answer{}, errors.Join(s.emptyFolder(), s.emptyPool()) })
	for _, s := range []*side{genuine, ours} {
		s.env, s.kept = map[string]string{}, map[string]string{}
		defer s.endWatches()
	}
	for _, st := range steps {
		switch st.kind {
		case "env":
			for _, s := range []*side{genuine, ours} {
				s.env[st.words[0]] = st.words[1]
			}
		case "file":
			both(t, func(s *side) (answer, error) {
				vars, err := s.vars()
				if err != nil {
					return answer{}, err
				}
				return answer{}, os.WriteFile(filepath.Join(s.dir, st.words[0]), []byte(expand(st.content, vars)), 0o600)
			})
		case "random":
			data, err := randomData(st.words[1], st.words[2])
			if err != nil {
				t.Fatal(err)
			}
			both(t, func(s *side) (answer, error) {
				return answer{}, os.WriteFile(filepath.Join(s.dir, st.words[0]), data, 0o600)
			})
		case "client":
			both(t, func(s *side) (answer, error) { return answer{}, s.journalClient(st.words[0], st.words[1]) })
		case "lose":
			both(t, func(s *side) (answer, error) { return answer{}, s.lose(st.words[0]) })
		case "mon":
			both(t, func(s *side) (answer, error) {
				_, err := s.cluster.MonCommand(st.words[0])
				return answer{}, err
			})
		case "watch":
			both(t, func(s *side) (answer, error) { return answer{}, s.watch(st.words) })
		case "unwatch":
			both(t, func(s *side) (answer, error) { s.endWatches(); return answer{}, nil })
		case "setup":
			// The genuine tool on both sides: what is set up has to be right.
			g, o := both(t, func(s *side) (answer, error) { return s.run(genuine.program, st.words, st.stdin) })
			if g.code != 0 || o.code != 0 {
				t.Fatalf("line %d: %s\n%s\n%s", st.number, st.text, g, o)
			}
			if st.keep != "" {
				genuine.kept[st.keep], ours.kept[st.keep] = kept(g.raw), kept(o.raw)
			}
		case "check":
			// The genuine tool tells of both sides what is there.
			g, o := both(t, func(s *side) (answer, error) { return s.run(genuine.program, st.words, st.stdin) })
			compared(st, compare(g, o, false))
		case "same":
			compared(st, sameFile(st.words[0]))
		case "rbd", "~rbd":
			g, o := both(t, func(s *side) (answer, error) { return s.run(s.program, st.words, st.stdin) })
			t.Logf("%4d ms, ours %4d ms: %s", g.took.Milliseconds(), o.took.Milliseconds(), st.text)
			compared(st, compare(g, o, st.kind == "~rbd"))
		}
	}
	// What is there now has to be the same, by the genuine tool's account.
	for _, words := range [][]string{{"ls", "-l", "--format", "json"}, {"namespace", "ls", "--format", "json"}, {"trash", "ls", "--all", "--format", "json"}} {
		g, o := both(t, func(s *side) (answer, error) {
			s.env = map[string]string{}
			return s.run(genuine.program, words, "")
		})
		if diff := compare(g, o, false); diff != "" {
			t.Errorf("afterwards, rbd %q differs:\n%s", words, diff)
		}
	}
}

// sameFile tells how files of both sides differ: in mode, or from which byte on.
func sameFile(name string) string {
	var modes []os.FileMode
	var contents [][]byte
	for _, s := range []*side{genuine, ours} {
		path := filepath.Join(s.dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return err.Error() + "\n"
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err.Error() + "\n"
		}
		modes, contents = append(modes, info.Mode()), append(contents, data)
	}
	g, o := contents[0], contents[1]
	switch {
	case modes[0] != modes[1]:
		return fmt.Sprintf("genuine has mode %v, ours %v\n", modes[0], modes[1])
	case len(g) != len(o):
		return fmt.Sprintf("genuine has %d bytes, ours %d\n", len(g), len(o))
	}
	for at := range g {
		if g[at] != o[at] {
			return fmt.Sprintf("from byte %d on: genuine has %q, ours %q\n", at, g[at:min(at+64, len(g))], o[at:min(at+64, len(o))])
		}
	}
	return ""
}
