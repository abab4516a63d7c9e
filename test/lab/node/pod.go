package node

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/opt-rbd/opt-rbd/test/lab/image"
)

// manifests is where kubelet looks for static pods, once a second.
const manifests = "/etc/kubernetes/manifests"

// RBD is the rbd volume of a pod, as the core/v1 API has it.
type RBD struct {
	Monitors []string `json:"monitors"` // address:port, the first messenger protocol's
	Pool     string   `json:"pool"`
	Image    string   `json:"image"`
	User     string   `json:"user"`    // without "client."
	Keyring  string   `json:"keyring"` // path in the node
	FSType   string   `json:"fsType"`
	ReadOnly bool     `json:"readOnly,omitempty"`
}

// WriterPod is the manifest of a static pod whose container adds a line a
// second to the file "lines" of its volume, and logs "first line written" when
// that is on the disk. Without rbd the volume is an empty folder of the node.
func WriterPod(name string, rbd *RBD) []byte {
	volume := map[string]any{"name": "data"}
	if rbd != nil {
		volume["rbd"] = rbd
	} else {
		volume["emptyDir"] = map[string]any{}
	}
	manifest := map[string]any{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{
			"terminationGracePeriodSeconds": 2,
			"containers": []any{map[string]any{
				"name":            "writer",
				"image":           image.WriterImage,
				"imagePullPolicy": "Never",
				"args":            []string{"/data"},
				"volumeMounts":    []any{map[string]any{"name": "data", "mountPath": "/data"}},
			}},
			"volumes": []any{volume},
		},
	}
	text, err := json.MarshalIndent(manifest, "", "\t")
	if err != nil {
		panic(err) // maps and strings are always encodable
	}
	return text
}

// PutPod gives kubelet a static pod; the name is that of the file.
func (n *Node) PutPod(name string, manifest []byte) {
	n.t.Helper()
	n.Put(path.Join(manifests, name+".json"), manifest, 0o600)
}

// RemovePod takes a static pod away from kubelet, which then ends it.
func (n *Node) RemovePod(name string) {
	n.t.Helper()
	n.Must("rm", path.Join(manifests, name+".json"))
}

// PodLog is what all containers of a static pod have logged, without times.
func (n *Node) PodLog(name string) string {
	n.t.Helper()
	out := n.Shell(`cat /var/log/pods/*_"$1-$(hostname)"_*/*/*.log 2>/dev/null || :`, name)
	var log strings.Builder
	for line := range strings.Lines(out) {
		// time, stream, F for a full line, text
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			log.WriteString(fields[3])
		}
	}
	return log.String()
}

// Journal is what a unit has logged since the node booted.
func (n *Node) Journal(unit string) string {
	n.t.Helper()
	return n.Must("journalctl", "--no-pager", "-o", "cat", "-u", unit)
}

// Uptime is the time since the node's kernel started, for the reports of
// tests, as the node counts it.
func (n *Node) Uptime() string {
	n.t.Helper()
	up, _, _ := strings.Cut(n.Must("cat", "/proc/uptime"), " ")
	return fmt.Sprintf("%s s", up)
}
