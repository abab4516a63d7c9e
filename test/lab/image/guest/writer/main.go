// Command writer is the application of the tests' pods: each second it adds a
// line to the file "lines" in the folder named by its argument and makes sure
// that the line is on the disk. It says "first line written", once.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM, unix.SIGINT)
	f, err := os.OpenFile(filepath.Join(dir, "lines"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	tick := time.NewTicker(time.Second)
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(f, "%d %s\n", n, time.Now().UTC().Format(time.RFC3339)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if n == 1 {
			fmt.Println("first line written")
		}
		select {
		case <-tick.C:
		case <-end:
			return nil
		}
	}
}
