package cli

import (
	"fmt"
	"os"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/encoding"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var watchCommand = &command{
	Command: args.Command{
		Path:     []string{"watch"},
		Operands: []args.Operand{imageSpec},
		Options:  imageOptions,
		Short:    "Watch events on image.",
	},
	run: watch,
}

// watch prints what clients tell each other about an image until it can read something, or nothing more.
func watch(c *call) (err error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	pool, image, err := c.openImage(s, "", true)
	if err != nil {
		return err
	}
	old, err := image.IsOldFormat()
	if err != nil {
		return errno.Wrap(err, "failed to query format")
	}
	header := s.Image + ".rbd"
	if !old {
		id, err := image.GetId()
		if err != nil {
			return errno.Wrap(err, "failed to query image id")
		}
		header = "rbd_header." + id
	}
	watcher, err := pool.Watch(header)
	if err != nil {
		return errno.Wrap(err, "watch failed")
	}
	fmt.Fprintln(c.stdout, "press enter to exit...")
	c.stdout.Flush()
	enter := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(enter)
	}()
	for {
		select {
		case <-enter:
			return errno.Wrap(watcher.Delete(), "unwatch failed")
		case event := <-watcher.Events():
			fmt.Fprintf(c.stdout, "%s received notification: notify_id=%d, cookie=%d, notifier_id=%d, bl.length=%d, notify_op=%s\n",
				s.Image, event.ID, event.WatcherID, event.NotifierID, len(event.Data), notifyOp(event.Data))
			if err := event.Ack(nil); err != nil {
				return errno.Wrap(err, "notification could not be acknowledged")
			}
		case err := <-watcher.Errors():
			fmt.Fprintf(c.stderr, "rbd: %s received error: cookie=%d, err=%s\n", s.Image, watcher.ID(), errno.Text(errno.Code(err)))
		}
		c.stdout.Flush()
	}
}

// notifyOps are what notifications of images say, by their number (NotifyOp in librbd's WatchNotifyTypes.h).
var notifyOps = []string{
	"AcquiredLock", "ReleasedLock", "RequestLock", "HeaderUpdate", "AsyncProgress", "AsyncComplete", "Flatten", "Resize",
	"SnapCreate", "SnapRemove", "RebuildObjectMap", "SnapRename", "SnapProtect", "SnapUnprotect", "Rename", "UpdateFeatures",
	"Migrate", "Sparsify", "Quiesce", "Unquiesce", "MetadataUpdate",
}

// notifyOp reads what a notification says. An empty one says that the header has changed: it is of the old format.
func notifyOp(data []byte) string {
	if len(data) == 0 {
		return "HeaderUpdate"
	}
	d := &encoding.Decoder{Data: data}
	_, message := d.Section()
	op := message.Uint32()
	if op >= uint32(len(notifyOps)) {
		return fmt.Sprintf("Unknown (%d)", op)
	}
	return notifyOps[op]
}
