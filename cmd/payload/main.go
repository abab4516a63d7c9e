// Command payload makes the folder that the launcher runs rbd from: see internal/payload.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/opt-rbd/opt-rbd/internal/payload"
)

func main() {
	var o payload.Options
	flag.StringVar(&o.Root, "root", "/", "take the libraries from this `folder`, the root of a distribution")
	flag.StringVar(&o.Dir, "out", "bin/payload", "make this `folder`; what stands there is replaced")
	flag.Func("program", "put this `file` into usr/bin; may be repeated, rbd comes first", func(file string) error {
		o.Programs = append(o.Programs, file)
		return nil
	})
	flag.Parse()
	if len(o.Programs) == 0 {
		o.Programs = []string{"bin/rbd"}
	}
	m, err := payload.Build(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "payload:", err)
		os.Exit(1)
	}
	ceph := "Ceph " + m.Ceph
	if m.Ceph == "" {
		ceph = "Ceph for another CPU" // its programs do not run here and cannot be asked
	}
	fmt.Printf("payload %s: %s, %d files, %.1f MB, in %s\n", m.ID, ceph, len(m.Files), float64(m.Size)/1e6, o.Dir)
}
