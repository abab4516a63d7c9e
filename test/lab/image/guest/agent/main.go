// Command agent is the guest's end of test/lab/agent, run by systemd in the
// node.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
)

func main() {
	port, err := openPort(agent.PortName)
	if err == nil {
		err = agent.Serve(port)
	}
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(1)
}

// openPort finds the port in sysfs: udev's link to it comes later in the boot.
func openPort(name string) (*os.File, error) {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		got, _ := os.ReadFile(file)
		if string(bytes.TrimSpace(got)) == name {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR|unix.O_NONBLOCK, 0)
		}
	}
	return nil, fmt.Errorf("no virtio port %q", name)
}
