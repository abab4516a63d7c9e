package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// patience is how long an operation makes no step before somebody is told who
// may keep it from that. A client that lives hands its lock over in
// milliseconds.
const patience = 10 * time.Second

// onStandstill has say called once with what waiting knows, the holder of the
// image's exclusive lock, when the operation makes no step for a while: librbd
// waits for a client that has died until the OSDs have forgotten it, for 30 s
// as they are configured, and says nothing. moved is to be called at each step,
// stop at the end.
func onStandstill(waiting func() []string, say func(hint string)) (moved, stop func()) {
	timer := time.AfterFunc(patience, func() {
		for _, line := range waiting() {
			say(line)
		}
	})
	moved = func() {
		if timer.Stop() { // else it has been said
			timer.Reset(patience)
		}
	}
	return moved, func() { timer.Stop() }
}

// holderHints names the client that has the exclusive lock, if that is another
// one, and how to take it away.
func holderHints(c *call, _ spec.Spec, image *rbd.Image) []string {
	var lines []string
	for _, h := range holders(c, image) {
		lines = append(lines, fmt.Sprintf("waiting for %s at %s, which holds the exclusive lock and does not answer; "+
			"if that host is gone for good, \"ceph osd blocklist add %s\" frees the image", h.Client, h.Addr, h.Addr))
	}
	return lines
}

// holders are the other clients that hold an image's exclusive lock: one at
// most. librbd has a call for that, which knows nothing where the image is
// open for reading only.
func holders(c *call, image *rbd.Image) []rbd.Locker {
	conn, err := c.cluster.Connect()
	if err != nil {
		return nil
	}
	_, lockers, err := image.ListLockers()
	if err != nil {
		return nil
	}
	own := fmt.Sprintf("client.%d", conn.GetInstanceID())
	return slices.DeleteFunc(lockers, func(l rbd.Locker) bool {
		// The other kind is that of rbd lock add, which keeps nobody from writing.
		return l.Client == own || !strings.HasPrefix(l.Cookie, "auto ")
	})
}
