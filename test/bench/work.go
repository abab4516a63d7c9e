package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/opt-rbd/opt-rbd/test/lab/directory"
)

const (
	workRounds = 9      // of rows that take a second
	named      = 10_000 // images in the pool whose names are listed
	detailed   = 1_000  // images in the pool that ls -l and du go through
	cloned     = 300    // clones that children names
	dataSize   = 256 << 20
)

// work is a row whose lines change something or move data. before and after
// are lines of the genuine rbd that make each run start from the same state.
type work struct {
	title  string
	before [][]string
	line   []string
	in     string // a file for stdin
	after  [][]string
	remove string // a file that the line makes
}

// work measures the ways side by side on what makes most of a backup's time.
func (b *bench) work(dir string, ways []way) error {
	say("pools with %d and %d images, and one of %d MiB", named, detailed, dataSize>>20)
	if err := b.fill(dir); err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	rm := func(image string) [][]string { return [][]string{{"rm", "--no-progress", image}} }
	rows := []work{
		{title: fmt.Sprintf("`ls` of %d images", named), line: []string{"ls", "named"}},
		{title: fmt.Sprintf("`ls -l` of %d images", detailed), line: []string{"ls", "-l", "detailed"}},
		{title: fmt.Sprintf("`du` of %d images", detailed), line: []string{"du", "-p", "detailed"}},
		{title: fmt.Sprintf("`children` of a snapshot with %d clones", cloned), line: []string{"children", "data@one"}},
		{title: "`create`", line: []string{"create", "new", "--size", "1G"}, after: rm("new")},
		{title: "`rm`", before: [][]string{{"create", "new", "--size", "1G"}}, line: []string{"rm", "--no-progress", "new"}},
		{title: "`clone`", line: []string{"clone", "data@one", "new"}, after: rm("new")},
		{title: "`snap create`", line: []string{"snap", "create", "--no-progress", "image00@new"}, after: [][]string{{"snap", "rm", "--no-progress", "image00@new"}}},
		{title: "`export` to a file", line: []string{"export", "--no-progress", "data", file("out")}, remove: file("out")},
		{title: "`export` to a pipe", line: []string{"export", "--no-progress", "data", "-"}},
		{title: "`export --export-format 2` to a pipe", line: []string{"export", "--no-progress", "--export-format", "2", "data", "-"}},
		{title: "`export-diff` to a pipe", line: []string{"export-diff", "--no-progress", "--from-snap", "one", "data@two", "-"}},
		{title: "`import` of a file", line: []string{"import", "--no-progress", file("data"), "new"}, after: rm("new")},
		{title: "`import` from a pipe", line: []string{"import", "--no-progress", "-", "new"}, in: file("data"), after: rm("new")},
		{
			title: "`import-diff` from a pipe", in: file("diff"),
			before: [][]string{{"create", "new", "--size", fmt.Sprint(dataSize >> 20)}, {"snap", "create", "--no-progress", "new@one"}},
			line:   []string{"import-diff", "--no-progress", "-", "new"},
			after:  [][]string{{"snap", "purge", "--no-progress", "new"}, {"rm", "--no-progress", "new"}},
		},
		{title: "`cp`", line: []string{"cp", "--no-progress", "data", "new"}, after: rm("new")},
		{
			// With its snapshots, of which one is protected.
			title: "`deep cp`", line: []string{"deep", "cp", "--no-progress", "data", "new"},
			after: [][]string{{"snap", "unprotect", "new@one"}, {"snap", "purge", "--no-progress", "new"}, {"rm", "--no-progress", "new"}},
		},
	}
	for _, size := range []struct{ request, total string }{{"4K", "16M"}, {"64K", "64M"}, {"4M", "256M"}} {
		for _, kind := range []string{"write", "read"} {
			rows = append(rows, work{
				title: fmt.Sprintf("`bench`: %s of %s by %s", kind, size.total, size.request),
				line:  []string{"bench", "--io-type", kind, "--io-size", size.request, "--io-total", size.total, "bench"},
			})
		}
	}
	for _, row := range rows {
		if !strings.Contains(row.title, b.only) {
			continue
		}
		if err := b.workRow(row, ways[:2]); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) workRow(row work, ways []way) error {
	say("rbd %s", row.title)
	genuine := func(lines [][]string) error {
		for _, line := range lines {
			if r := b.c.Rbd(line...); r.Code != 0 {
				return fmt.Errorf("%s: rbd %v: %s", row.title, line, r.Stderr)
			}
		}
		return nil
	}
	times := make([][]time.Duration, len(ways))
	for round := range workRounds + 1 { // the first warms up
		for _, i := range rand.Perm(len(ways)) {
			if err := genuine(row.before); err != nil {
				return err
			}
			d, err := b.stream(row, append(slices.Clone(ways[i].argv), row.line...))
			if err != nil {
				return err
			}
			if err := genuine(row.after); err != nil {
				return err
			}
			if row.remove != "" {
				if err := os.Remove(row.remove); err != nil {
					return err
				}
			}
			if round > 0 {
				times[i] = append(times[i], d)
			}
		}
	}
	b.write(row.title, ways, times)
	return nil
}

// stream is the wall time of one process that has to succeed. Its output goes
// through a pipe, and its input comes through one.
func (b *bench) stream(row work, argv []string) (d time.Duration, err error) {
	cmd := b.c.Command(b.ctx, argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var in *os.File
	var pipe io.WriteCloser
	if row.in != "" {
		if in, err = os.Open(row.in); err != nil {
			return 0, err
		}
		defer in.Close()
		if pipe, err = cmd.StdinPipe(); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var group errgroup.Group
	group.Go(func() error {
		_, err := io.Copy(io.Discard, out)
		return err
	})
	if pipe != nil {
		group.Go(func() error {
			_, err := io.Copy(pipe, in)
			return errors.Join(err, pipe.Close())
		})
	}
	err = errors.Join(group.Wait(), cmd.Wait())
	if err != nil {
		err = fmt.Errorf("%v: %w", argv, err)
	}
	return time.Since(start), err
}

// fill makes what the rows work on. A list of names reads the pool's
// directory only, so that the images of the first pool are but names there.
func (b *bench) fill(dir string) error {
	data := make([]byte, dataSize)
	random := rand.NewChaCha8([32]byte{1})
	// A quarter is zeros, in runs of objects and in runs within them.
	for at := 0; at < len(data); at += 1 << 20 {
		if at>>20%8 != 3 && at>>20%8 != 4 {
			_, _ = random.Read(data[at : at+1<<20])
		}
	}
	in := filepath.Join(dir, "data")
	if err := os.WriteFile(in, data, 0o644); err != nil {
		return err
	}
	for _, line := range [][]string{
		{"import", "--no-progress", in, "data"},
		{"snap", "create", "--no-progress", "data@one"},
		{"bench", "--io-type", "write", "--io-pattern", "rand", "--io-size", "64K", "--io-total", "64M", "data"},
		{"snap", "create", "--no-progress", "data@two"},
		{"snap", "protect", "data@one"},
		{"export-diff", "--no-progress", "--from-snap", "one", "data@two", filepath.Join(dir, "diff")},
		{"create", "bench", "--size", "256M"},
		{"bench", "--io-type", "write", "--io-size", "4M", "--io-total", "256M", "bench"},
	} {
		if r := b.c.Rbd(line...); r.Code != 0 {
			return fmt.Errorf("rbd %v: %s", line, r.Stderr)
		}
	}
	for _, pool := range []string{"named", "detailed", "cloned"} {
		if _, err := b.c.MonCommand(fmt.Sprintf(`{"prefix": "osd pool create", "pool": %q, "pg_num": 8, "yes_i_really_mean_it": true}`, pool)); err != nil {
			return err
		}
	}
	var clones errgroup.Group
	clones.SetLimit(4)
	for i := range cloned {
		clones.Go(func() error {
			r := b.c.Rbd("clone", "data@one", fmt.Sprintf("cloned/pvc-%08d", i))
			if r.Code != 0 {
				return fmt.Errorf("rbd clone: %s", r.Stderr)
			}
			return nil
		})
	}
	if err := clones.Wait(); err != nil {
		return err
	}
	if err := directory.Fill(b.c, "named", named, func(i int) string { return fmt.Sprintf("pvc-%08d", i) }); err != nil {
		return err
	}
	// In the cluster's network, which the threads of librados are born into.
	return b.c.Do(func() error {
		conn, err := rados.NewConn()
		if err != nil {
			return err
		}
		if err := conn.ReadConfigFile(b.c.Conf()); err != nil {
			return err
		}
		if err := conn.Connect(); err != nil {
			return err
		}
		defer conn.Shutdown()
		long, err := conn.OpenIOContext("detailed")
		if err != nil {
			return err
		}
		defer long.Destroy()
		var group errgroup.Group
		group.SetLimit(16)
		for i := range detailed {
			group.Go(func() error {
				o := rbd.NewRbdImageOptions()
				defer o.Destroy()
				return rbd.CreateImage(long, fmt.Sprintf("pvc-%08d", i), 1<<30, o)
			})
		}
		return group.Wait()
	})
}
