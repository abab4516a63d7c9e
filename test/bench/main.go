// Command bench measures what an rbd call costs: through the launcher, as the
// genuine rbd, and through the docker-run wrapper that people use otherwise.
//
// Every row runs its ways in turn, in a new order each round, so that a change
// of the machine's speed meets them all; it gives medians, and the median of
// the ratios of each round. A single time says nothing on a shared machine,
// the ratios do. `make bench` runs it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

func main() {
	var (
		rounds   = flag.Int("rounds", 41, "rounds of a row")
		noDocker = flag.Bool("no-docker", false, "leave out the docker-run wrapper")
		noNode   = flag.Bool("no-node", false, "leave out map and unmap, which need the node")
		only     = flag.String("only", "", "measure only the rows whose titles have this in them, without docker; map is for those of the node too")
		readme   = flag.String("readme", "", "write the table between the bench marks of this file too")
		picture  = flag.String("chart", "", "draw the ratios into this SVG file")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, !*noDocker, !*noNode, *only, *readme, *picture); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func say(format string, a ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", a...) }

func run(ctx context.Context, rounds int, docker, node bool, only, readme, picture string) (err error) {
	dir, err := os.MkdirTemp("", "opt-rbd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	if only != "" && readme != "" {
		return errors.New("-readme is for the whole table: not with -only")
	}
	say("a cluster with twenty images")
	c, err := cluster.New(ctx, cluster.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range 20 {
		if r := c.Rbd("create", fmt.Sprintf("image%02d", i), "--size", "1G"); r.Code != 0 {
			return fmt.Errorf("rbd create: %s", r.Stderr)
		}
	}
	launcher, err := install(ctx, dir)
	if err != nil {
		return err
	}

	b := &bench{ctx: ctx, c: c, rounds: rounds, only: only, out: &bytes.Buffer{}}
	direct, ours, genuine := way{"direct", []string{"bin/payload/usr/bin/rbd"}}, way{"opt-rbd", []string{launcher}}, way{"genuine", []string{"/usr/bin/rbd"}}
	ways := []way{genuine, ours}
	if docker && only == "" {
		say("a Docker daemon with the ceph-common image")
		wrapper, stop, err := startDocker(ctx, c, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		ways = append(ways, way{"docker run", wrapper})
	}

	b.head()
	b.row("launcher alone: `--version`", 1, []way{direct, ours}, "--version")
	for _, line := range [][]string{{"--version"}, {"showmapped"}, {"unmap", "/dev/null"}, {"ls"}, {"info", "image07"}, {"status", "image07"}} {
		b.row("`rbd "+strings.Join(line, " ")+"`", 1, ways, line...)
	}
	b.rounds = max(3, rounds/10)
	b.row("50 × `rbd ls` at once", 50, ways, "ls")
	if b.err != nil {
		return b.err
	}
	b.rounds = rounds
	if err := b.work(dir, ways); err != nil {
		return err
	}
	if node && (only == "" || only == "map") {
		say("map and unmap in the node")
		if err := b.node(dir); err != nil {
			return err
		}
	}

	if b.count == 0 {
		return fmt.Errorf("no row has %q in its title", only)
	}
	table := fmt.Sprintf("Measured on %s: %d cores, %s, %s. Milliseconds, medians; the ratio is to the genuine rbd, round by round.\n\n%s",
		time.Now().Format("2006-01-02"), runtime.NumCPU(), memory(), version(), b.out)
	fmt.Print(table)
	if picture != "" {
		if err := writeChart(picture, b.bars); err != nil {
			return err
		}
	}
	if readme != "" {
		return putBetween(readme, "<!-- bench:begin -->\n", "<!-- bench:end -->", table)
	}
	return nil
}

// way is one way to run rbd: what stands before its arguments.
type way struct {
	name string
	argv []string
}

type bench struct {
	ctx    context.Context
	c      *cluster.Cluster
	rounds int
	only   string
	out    *bytes.Buffer
	count  int // of rows
	bars   []bar
	err    error // the first that happened; further rows do nothing
}

func (b *bench) head() {
	fmt.Fprintln(b.out, "| | genuine rbd | opt-rbd | ratio | docker run wrapper |")
	fmt.Fprintln(b.out, "|---|---:|---:|---:|---:|")
}

// row measures one command line, n processes of it at once, in every way and
// writes a line of the table.
func (b *bench) row(title string, n int, ways []way, args ...string) {
	if b.err != nil || !strings.Contains(title, b.only) {
		return
	}
	say("%s", title)
	rounds := b.rounds
	times := make([][]time.Duration, len(ways))
	for round := range rounds + 1 { // the first warms up and is not counted
		for _, i := range rand.Perm(len(ways)) {
			slow := ways[i].name == "docker run"
			if slow && round > max(3, rounds/4) {
				continue // hundreds of milliseconds a call: fewer rounds show it
			}
			d, err := b.measure(n, append(slices.Clone(ways[i].argv), args...))
			if err != nil {
				b.err = fmt.Errorf("%s, %s: %w", title, ways[i].name, err)
				return
			}
			if round > 0 {
				times[i] = append(times[i], d)
			}
		}
	}
	b.write(title, ways, times)
}

// write adds the line of a row: the first way is what the others are compared with.
func (b *bench) write(title string, ways []way, times [][]time.Duration) {
	ratios := make([]float64, 0, len(times[0]))
	for i := range min(len(times[0]), len(times[1])) {
		ratios = append(ratios, float64(times[1][i])/float64(times[0][i]))
	}
	cells := []string{ms(median(times[0])), ms(median(times[1])), fmt.Sprintf("%.2f", median(ratios)), ""}
	if ways[0].name == "direct" {
		cells[0] += " (direct exec)"
		diffs := make([]time.Duration, 0, len(times[0]))
		for i := range times[0] {
			diffs = append(diffs, times[1][i]-times[0][i])
		}
		cells[2] = fmt.Sprintf("%+.1f ms", float64(median(diffs).Microseconds())/1000)
	}
	if ways[0].name == "bare write" {
		cells[0] += " (bare write to sysfs)"
	}
	if len(ways) > 2 {
		cells[3] = ms(median(times[2]))
	}
	line := fmt.Sprintf("| %s | %s |\n", title, strings.Join(cells, " | "))
	b.out.WriteString(line)
	b.count++
	fmt.Fprint(os.Stderr, line) // what is measured is not lost when a later row fails
	if ways[0].name == "genuine" {
		b.bars = append(b.bars, bar{title, median(ratios)})
	}
}

// measure is the wall time of n processes of argv started at once. That they
// end is what counts; exit codes are the same for all ways and not looked at,
// but a program that does not start is an error.
func (b *bench) measure(n int, argv []string) (time.Duration, error) {
	cmds := make([]*cluster.Cmd, n)
	for i := range cmds {
		cmds[i] = b.c.Command(b.ctx, argv[0], argv[1:]...)
	}
	start := time.Now()
	for _, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
	}
	var wg sync.WaitGroup
	for _, cmd := range cmds {
		wg.Go(func() { _ = cmd.Wait() })
	}
	wg.Wait()
	elapsed := time.Since(start)
	for _, cmd := range cmds {
		if code := cmd.ProcessState.ExitCode(); code < 0 || code >= 125 {
			return 0, fmt.Errorf("%s: %s", strings.Join(argv, " "), cmd.ProcessState)
		}
	}
	return elapsed, b.ctx.Err()
}

// install puts the launcher and the payload below dir as the installer does on
// a node and returns the launcher's path.
func install(ctx context.Context, dir string) (string, error) {
	root := filepath.Join(dir, "root")
	for _, d := range []string{"etc", "usr/bin", "usr/lib64", "opt", "run"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Symlink("usr/lib64", filepath.Join(root, "lib64")); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "bin/installer", "install", "--root", root).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("bin/installer: %w: %s", err, out)
	}
	return filepath.Join(root, "opt/bin/rbd"), nil
}

func median[T time.Duration | float64](v []T) T {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func ms(d time.Duration) string {
	if f := float64(d.Microseconds()) / 1000; f < 100 {
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%d", d.Milliseconds())
}

func memory() string {
	var kb int
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return "memory unknown"
	}
	defer f.Close()
	if _, err := fmt.Fscanf(io.LimitReader(f, 100), "MemTotal: %d kB", &kb); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%d GiB", (kb+1<<19)>>20)
}

func version() string {
	out, err := exec.Command("/usr/bin/rbd", "--version").Output()
	if err != nil {
		return "Ceph of unknown version"
	}
	words := strings.Fields(string(out))
	return "Ceph " + words[2]
}

// putBetween replaces what stands between two marks of a file.
func putBetween(name, begin, end, text string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %q ... %q", name, begin, end)
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, []byte(before+begin+text+end+after), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
