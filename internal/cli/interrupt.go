package cli

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// onInterrupt has a line ready for who ends the command half-way by a signal:
// in what state that leaves things. The signal then does what it does. The
// function that it gives ends that.
func (c *call) onInterrupt(line string) (stop func()) {
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		// One that is ignored, as a shell has it for what runs in the
		// background, does not end the command.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			fmt.Fprintf(c.stderr, "\nrbd: interrupted: %s\n", line)
			signal.Reset(s)
			_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
		case <-done:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// leftBy says in what state a command leaves things that is ended half-way, of
// those whose long part is under a progress line. Commands that make an image
// say themselves which one.
var leftBy = map[string]string{
	"export":              "the file is not complete",
	"export-diff":         "the file is not complete",
	"merge-diff":          "the file is not complete",
	"flatten":             "the clone still has its parent: flatten it again",
	"sparsify":            "nothing is lost: sparsify it again",
	"resize":              "the size may be the old one or the new one: resize it again",
	"remove":              "the image may be there in part: remove it again, here or with \"rbd trash ls\" and \"rbd trash rm\"",
	"trash remove":        "the image may be there in part: remove it again",
	"trash purge":         "some images are gone, others are still in the trash: purge it again",
	"snap rollback":       "the image is in part as it was and in part as the snapshot is: roll it back again",
	"group snap rollback": "images are in part as they were and in part as the snapshot is: roll them back again",
	"snap purge":          "some snapshots are gone, others are still there: purge again",
	"object-map rebuild":  "the object map is not rebuilt: do it again",
	"migration prepare":   "look at it with \"rbd status\": prepared, it can be executed or aborted",
	"migration execute":   "the migration is not over: execute it again, or abort it",
	"migration commit":    "the migration is not over: commit it again",
	"migration abort":     "the migration is not over: abort it again",
}

// onInterruptOf is onInterrupt with what there is to say of the command, which
// may be nothing.
func (c *call) onInterruptOf() (stop func()) {
	line, ok := leftBy[strings.Join(c.line.Command.Path, " ")]
	if !ok {
		return func() {}
	}
	return c.onInterrupt(line)
}

// making is an image that the command makes and fills.
type making struct {
	pool *rados.IOContext
	spec spec.Spec
}

func (m *making) String() string {
	return fmt.Sprintf("the image %s is not complete: remove it with \"rbd rm %s\"", m.spec, m.spec)
}

// hints says of an image that was not made to the end that it is there.
func (m *making) hints(err error) []string {
	switch errno.Code(err) {
	case syscall.EEXIST:
		return nil // somebody else's
	case syscall.ETIMEDOUT, syscall.ESHUTDOWN:
		return []string{m.String() + ", if it is there"}
	}
	image, err := rbd.OpenImageReadOnly(m.pool, m.spec.Image, rbd.NoSnapshot)
	if err != nil {
		return nil
	}
	image.Close()
	return []string{m.String()}
}
