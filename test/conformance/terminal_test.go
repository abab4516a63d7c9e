package conformance

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// On a terminal a long operation has a bar with rate and time left, which is
// gone when it ends; all that is left is the genuine tool's last line.
func TestBarOnTerminal(t *testing.T) {
	ours.fresh(t, "create long --size 64M", "bench --io-type write --io-size 4M --io-total 64M --io-pattern seq long")
	bar := `\rExporting image +\[=+ *\] \d+% [0-9.]+ MiB of 64 MiB, [0-9.]+ [KM]iB/s, \d+s left`
	for _, c := range []struct {
		args string
		bar  bool
		last string
	}{
		{"export long -", true, "\rExporting image: 100% complete...done.\r\n"},
		{"export long - --export-format 2", true, "\rExporting image: 100% complete...done.\r\n"},
		{"export long - --no-progress", false, ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := ours.cluster.Command(t.Context(), ours.program, strings.Fields(c.args)...)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			shown := onTerminal(t, cmd, func() {
				// Read slowly enough for a bar to be drawn.
				for {
					n, err := io.CopyN(io.Discard, stdout, 8<<20)
					if err != nil || n == 0 {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
			if got := regexp.MustCompile(bar).MatchString(shown); got != c.bar {
				t.Errorf("bar: %v, want %v: %q", got, c.bar, shown)
			}
			if !strings.HasSuffix(shown, c.last) || c.last == "" && shown != "" {
				t.Errorf("%q does not end with %q", shown, c.last)
			}
			if c.bar && strings.Count(shown, "complete...") != 1 {
				t.Errorf("the line is there, too: %q", shown)
			}
		})
	}
}

// onTerminal runs a command with a terminal as its standard error, and
// something while it runs, and gives what the terminal has shown.
func onTerminal(t *testing.T, cmd *cluster.Cmd, during func()) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 120}); err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = slave
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		// It ends with EIO when nobody has the other end open any more.
		data, _ := io.ReadAll(master)
		shown <- string(data)
	}()
	during()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return <-shown
}
