package installer

import (
	"context"
	"time"
)

// powerCut takes the node's power away: the machine ends with all that its kernel had not written to the disk yet. What
// has been said to be done must be there after it, and what was under way must be finished by the next run. That each
// single change may be the last one is what TestKilledAnywhere of internal/node walks through; here files lose their
// content, too.
func powerCut(n testNode) {
	t := n.t
	n.Must("sync") // the installer itself came to the disk unsynced

	began := time.Now()
	n.installer(0, "install")
	took := time.Since(began)
	n.PowerCycle()
	n.installer(0, "status")
	n.contains(n.Must("/opt/bin/rbd"), "rbd of the test")
	if got := n.servicePath(); got != n.path+":/opt/bin" {
		t.Errorf("after the power cut a service gets PATH=%s", got)
	}
	n.installer(0, "uninstall")
	n.PowerCycle()
	n.same(n.bare, "after uninstall and a power cut")

	for _, part := range []time.Duration{4, 8} {
		ctx, cancel := context.WithTimeout(t.Context(), took*part/10)
		// It ends with the node.
		go n.VM.Run(context.WithoutCancel(ctx), tools+"/installer", "install")
		<-ctx.Done()
		cancel()
		n.PowerCycle()
		left := n.Shell("find /opt /etc/systemd/system.conf.d /etc/modules-load.d -newer /etc/hostname ! -type d 2>/dev/null | tr '\\n' ' '")
		t.Logf("power cut %.1f s after the start of an install, left: %s", (took * part / 10).Seconds(), left)
		if r := n.Run("sh", "-c", "! test -e /opt/bin/rbd || /opt/bin/rbd"); r.Code != 0 {
			t.Errorf("after %v of an install there is an rbd that does not work: %+v", took*part/10, r)
		}
		if got := n.servicePath(); got != n.path && got != n.path+":/opt/bin" {
			t.Errorf("after %v of an install a service gets PATH=%s", took*part/10, got)
		}
		n.installer(0, "install")
		n.installer(0, "status")
		n.installer(0, "uninstall")
		n.same(n.bare, "after a power cut, install and uninstall")
	}
}
