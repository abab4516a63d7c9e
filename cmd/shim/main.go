// The runtime need not ask the cgroup how many threads it may use: there is one.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command shim is what a node has as /opt/bin/rbd: a static program that runs the rbd of the payload beside it.
package main

import (
	"errors"
	"os"

	"github.com/opt-rbd/opt-rbd/internal/launch"
)

// Everything happens in init: until main starts, the runtime keeps the main goroutine on the main thread, as Exec
// needs it. runtime.LockOSThread says the same but starts one more thread.
func init() {
	payload, err := launch.Find()
	if err == nil {
		err = launch.Exec(payload, os.Args, os.Environ())
	}
	code := 126
	var failure *launch.Error
	if errors.As(err, &failure) {
		code = failure.Code
	}
	os.Stderr.WriteString("rbd: " + err.Error() + "\n")
	os.Exit(code)
}

func main() {}
