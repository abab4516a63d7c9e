// Command rbd manages Ceph block device images with the words and forms of
// Ceph's own rbd.
package main

import (
	"os"

	"github.com/opt-rbd/opt-rbd/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
