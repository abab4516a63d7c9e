package node

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/image"
)

// TestKubelet has a pod that needs nothing run to its end, and shows what
// kubelet says of a pod with a Ceph disk on a node of this kind.
func TestKubelet(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	if r := c.Rbd("create", "disk", "--size", "64M"); r.Code != 0 {
		t.Fatalf("rbd create: %+v", r)
	}
	keyring, err := os.ReadFile(c.Keyring("client.admin"))
	if err != nil {
		t.Fatal(err)
	}
	n := Start(t, Options{NetNS: c.NetNS(), Kubelet: true})
	t.Logf("first command at %s", n.Uptime())
	n.PutPod("plain", WriterPod("plain", nil))
	n.Put("/etc/ceph/keyring", keyring, 0o600)
	n.PutPod("disk", WriterPod("disk", &RBD{
		Monitors: []string{c.MonV1()}, Pool: "rbd", Image: "disk", User: "admin", Keyring: "/etc/ceph/keyring", FSType: "ext4",
	}))
	n.WaitFor(3*time.Minute, "the plain pod writes", func() bool {
		return strings.Contains(n.PodLog("plain"), "first line written")
	})
	t.Logf("the plain pod writes at %s", n.Uptime())
	n.WaitFor(time.Minute, "kubelet says that there is no rbd", func() bool {
		return strings.Contains(n.Journal("kubelet"), "fail to check rbd image status with: (executable file not found in $PATH)")
	})
	if v := n.Must("/usr/lib/kubernetes/kubelet", "--version"); v != "Kubernetes "+image.KubeletVersion {
		t.Errorf("kubelet says %q", v)
	}
	n.RemovePod("plain")
	n.RemovePod("disk")
	n.WaitFor(time.Minute, "the pods' folders are gone", func() bool {
		return n.Run("sh", "-c", "! ls -d /var/lib/kubelet/pods/*/").Code == 0
	})
	t.Logf("the pods are gone at %s", n.Uptime())
}
