package main

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// overlays are those that exist, each with the host's folder that the command
// goes to and where the pod sees it.
var overlays = map[string][2]string{
	"flatcar":       {"/opt", "/host/opt"},
	"fedora-coreos": {"/var/usrlocal", "/host/var/usrlocal"},
}

func TestEveryOverlayIsTested(t *testing.T) {
	dirs, err := filepath.Glob("../../deploy/overlays/*")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, dir := range dirs {
		names = append(names, filepath.Base(dir))
	}
	if want := slices.Sorted(maps.Keys(overlays)); !slices.Equal(names, want) {
		t.Errorf("overlays %q, tested are %q", names, want)
	}
}

func TestInstall(t *testing.T) {
	for overlay, prefix := range overlays {
		t.Run(overlay, func(t *testing.T) {
			b := must(t, overlay+"/install")
			if b.namespace == nil || b.daemonSet == nil || b.job != nil {
				t.Fatalf("want a namespace and a DaemonSet:\n%s", b.text)
			}
			equal(t, "level of Pod Security", b.namespace.Labels["pod-security.kubernetes.io/enforce"], "privileged")
			equal(t, "namespace", b.daemonSet.Namespace, b.namespace.Name)
			equal(t, "selector", b.daemonSet.Spec.Selector.MatchLabels, b.template().Labels)
			equal(t, "update", string(b.daemonSet.Spec.UpdateStrategy.Type), "RollingUpdate")
			equal(t, "nodes updated at once", b.daemonSet.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String(), "5%")
			s := b.template().Spec
			privileges(t, s, overlay)
			folders(t, s, prefix)
			equal(t, "node selector", s.NodeSelector, map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"})
			c := s.Containers[0]
			equal(t, "command", c.Command, []string{"/opt-rbd/installer"})
			equal(t, "arguments", c.Args, []string{"run", "--root=/host", "--live", "--interval=10m", "--restart-jitter=5m", "--restart-interval=15m", "--log-format=json"})
			equal(t, "probe", c.ReadinessProbe.Exec.Command, []string{"/opt-rbd/installer", "ready"})
		})
	}
}

func TestUninstall(t *testing.T) {
	for overlay, prefix := range overlays {
		t.Run(overlay, func(t *testing.T) {
			b := must(t, overlay+"/uninstall")
			if b.namespace != nil || b.daemonSet != nil || b.job == nil {
				t.Fatalf("want a Job alone:\n%s", b.text)
			}
			s := b.template().Spec
			privileges(t, s, overlay)
			folders(t, s, prefix)
			equal(t, "node selector", s.NodeSelector, map[string]string{"kubernetes.io/hostname": "NODE"})
			equal(t, "name", b.job.Name, "opt-rbd-uninstall-NODE")
			equal(t, "arguments", s.Containers[0].Args, []string{"uninstall", "--root=/host", "--live"})
			equal(t, "restart policy", s.RestartPolicy, corev1.RestartPolicyOnFailure)

			// What installs and what takes it back see the same of the host.
			install := must(t, overlay+"/install").template().Spec
			state := func(v corev1.Volume) bool { return v.Name == "state" }
			equal(t, "volumes", s.Volumes, slices.DeleteFunc(install.Volumes, state))
			mount := func(m corev1.VolumeMount) bool { return m.Name == "state" }
			equal(t, "mounts", s.Containers[0].VolumeMounts, slices.DeleteFunc(install.Containers[0].VolumeMounts, mount))
			equal(t, "resources", s.Containers[0].Resources, install.Containers[0].Resources)
		})
	}
}

// privileges are those that a pod of ours asks for. The security contexts are
// compared as a whole, so that no field of them can be added unseen.
func privileges(t *testing.T, s corev1.PodSpec, overlay string) {
	t.Helper()
	no, yes, root := false, true, int64(0)
	equal(t, "hostNetwork", s.HostNetwork, false)
	equal(t, "hostPID", s.HostPID, false)
	equal(t, "hostIPC", s.HostIPC, false)
	equal(t, "automountServiceAccountToken", s.AutomountServiceAccountToken, &no)
	equal(t, "serviceAccountName", s.ServiceAccountName, "")
	equal(t, "enableServiceLinks", s.EnableServiceLinks, &no)
	equal(t, "priorityClassName", s.PriorityClassName, "system-node-critical")
	equal(t, "tolerations", s.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}})
	equal(t, "the pod's securityContext", s.SecurityContext, &corev1.PodSecurityContext{
		RunAsUser: &root, RunAsGroup: &root,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	})
	equal(t, "init containers", len(s.InitContainers), 0)
	equal(t, "containers", len(s.Containers), 1)
	c := s.Containers[0]
	want := &corev1.SecurityContext{
		Privileged:               &no,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	if overlay == "fedora-coreos" {
		want.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
	}
	equal(t, "the container's securityContext", c.SecurityContext, want)
	equal(t, "ports", len(c.Ports), 0)
	equal(t, "environment", len(c.Env)+len(c.EnvFrom), 0)
	equal(t, "memory", c.Resources.Limits[corev1.ResourceMemory], resource.MustParse("128Mi"))
}

// folders are those of the host that a pod sees, and how.
func folders(t *testing.T, s corev1.PodSpec, prefix [2]string) {
	t.Helper()
	want := map[string]string{
		"/run/dbus":           "/host/run/dbus, read-only",
		"/run/opt-rbd":        "/host/run/opt-rbd",
		"/usr":                "/host/usr, read-only",
		"/etc/modules-load.d": "/host/etc/modules-load.d",
		"/etc/systemd":        "/host/etc/systemd",
		"/etc/udev":           "/host/etc/udev",
		prefix[0]:             prefix[1],
	}
	got := map[string]string{}
	for _, v := range s.Volumes {
		if v.HostPath == nil {
			if v.EmptyDir == nil {
				t.Errorf("volume %s is neither a folder of the host nor an empty one", v.Name)
			}
			continue
		}
		// A single file would be the one that was there when the pod started.
		if kind := *v.HostPath.Type; kind != corev1.HostPathDirectory && kind != corev1.HostPathDirectoryOrCreate {
			t.Errorf("%s is mounted as a %s", v.HostPath.Path, kind)
		}
		for _, m := range s.Containers[0].VolumeMounts {
			if m.Name != v.Name {
				continue
			}
			at := m.MountPath
			if m.ReadOnly {
				at += ", read-only"
			}
			if m.MountPropagation != nil || m.SubPath != "" {
				at += ", with propagation or a part only"
			}
			got[v.HostPath.Path] = at
		}
	}
	equal(t, "folders of the host", got, want)
}

// A manifest that the API would not take must not pass as one that it does.
func TestStrict(t *testing.T) {
	for name, edit := range map[string][2]string{
		"unknown field": {"hostPID: false", "hostPid: false"},
		"wrong type":    {"hostPID: false", "hostPID: [no]"},
		"field twice":   {"hostPID: false", "hostPID: false\n      hostPID: false"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			disk := filesys.MakeFsOnDisk()
			for _, file := range []string{"kustomization.yaml", "namespace.yaml", "daemonset.yaml"} {
				text, err := disk.ReadFile("../../deploy/base/install/" + file)
				if err != nil {
					t.Fatal(err)
				}
				changed := strings.Replace(string(text), edit[0], edit[1], 1)
				if file == "daemonset.yaml" && changed == string(text) {
					t.Fatalf("no %q in %s", edit[0], file)
				}
				if err := disk.WriteFile(filepath.Join(dir, file), []byte(changed)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := build(dir); err == nil {
				t.Error("no error")
			} else {
				t.Log(err)
			}
		})
	}
}

func must(t *testing.T, overlay string) built {
	t.Helper()
	b, err := build("../../deploy/overlays/" + overlay)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, not %+v", what, got, want)
	}
}
