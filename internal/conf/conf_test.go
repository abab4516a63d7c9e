package conf

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = `
# a comment
[global]
	fsid = in a section
	mon host = 10.0.0.1, 10.0.0.2   ; the third one comes later
	auth_client_required = "cephx" # quoted
	rbd_default pool = disks
	keyring = /etc/ceph/$cluster.keyring
[client]
	keyring = /etc/ceph/all
	rbd_default_map_options = ms_mode=crc
[client.kube]
	keyring = /etc/ceph/kube
[osd]
	keyring = /var/lib/osd
[client]
	rbd default pool = other
	rbd default pool = clients
`
	for client, want := range map[string]Options{
		"client.kube": {"fsid": "in a section", "mon_host": "10.0.0.1, 10.0.0.2", "auth_client_required": "cephx", "rbd_default_pool": "clients",
			"keyring": "/etc/ceph/kube", "rbd_default_map_options": "ms_mode=crc"},
		"client.other": {"fsid": "in a section", "mon_host": "10.0.0.1, 10.0.0.2", "auth_client_required": "cephx", "rbd_default_pool": "clients",
			"keyring": "/etc/ceph/all", "rbd_default_map_options": "ms_mode=crc"},
	} {
		got, err := Parse(text, client)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", client, err, diff)
		}
	}
	for _, text := range []string{"[global", "words", "a = \"b", `a = "b" c`, `a = b\ c`, "[global] a = b", "a = b\n", "[global]\na = b", "[global]\n \n", "[global]\na = \x01\n"} {
		if got, err := Parse(text, "client.a"); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestExpand(t *testing.T) {
	for value, want := range map[string]string{
		"/etc/ceph/$cluster.$name.keyring": "/etc/ceph/ceph.client.kube.keyring", "${cluster}/$type/$id": "ceph/client/kube", "plain": "plain",
	} {
		if got, ok := Expand(value, "ceph", "client.kube"); got != want || !ok {
			t.Errorf("%q: %q, %v", value, got, ok)
		}
	}
	for _, value := range []string{"/run/$pid", "$host", "$", "${home}"} {
		if got, ok := Expand(value, "ceph", "client.kube"); ok {
			t.Errorf("%q: %q", value, got)
		}
	}
}

func lookup(name string) ([]string, error) {
	if name != "mon.example" {
		return nil, errors.New("no such name")
	}
	return []string{"10.0.0.8", "10.0.0.9"}, nil
}

func TestMonitorsRefused(t *testing.T) {
	for _, text := range []string{"mon.elsewhere", "mon.example:port", "mon.example:70000"} {
		if list, err := Monitors(text, lookup); err == nil {
			t.Errorf("%q: %v", text, list)
		}
	}
}

func TestMonitors(t *testing.T) {
	for _, c := range []struct {
		monHost string
		v1, v2  []string
	}{
		{"10.0.0.1", []string{"10.0.0.1:6789"}, []string{"10.0.0.1:3300"}},
		{"10.0.0.1:6789,10.0.0.2:6789", []string{"10.0.0.1:6789", "10.0.0.2:6789"}, nil},
		{"10.0.0.1:3300", nil, []string{"10.0.0.1:3300"}},
		{"10.0.0.1:16789", []string{"10.0.0.1:16789"}, nil},
		{"[v2:10.0.0.1:3300,v1:10.0.0.1:6789]", []string{"10.0.0.1:6789"}, []string{"10.0.0.1:3300"}},
		{"[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0] [v2:10.0.0.2:3300/0,v1:10.0.0.2:6789/0]",
			[]string{"10.0.0.1:6789", "10.0.0.2:6789"}, []string{"10.0.0.1:3300", "10.0.0.2:3300"}},
		{"v1:10.0.0.1:6789; v1:10.0.0.2", []string{"10.0.0.1:6789", "10.0.0.2:6789"}, nil},
		{"[fd00::1]:6789", []string{"[fd00::1]:6789"}, nil},
		{"fd00::1", []string{"[fd00::1]:6789"}, []string{"[fd00::1]:3300"}},
		{"[fd00::1]", []string{"[fd00::1]:6789"}, []string{"[fd00::1]:3300"}},
		{"mon.example:6789,mon.example", []string{"10.0.0.8:6789", "10.0.0.9:6789", "10.0.0.8:6789", "10.0.0.9:6789"}, []string{"10.0.0.8:3300", "10.0.0.9:3300"}},
		{"[v2:[fd00::1]:3300/0,v1:[fd00::1]:6789/0]", []string{"[fd00::1]:6789"}, []string{"[fd00::1]:3300"}},
	} {
		list, err := Monitors(c.monHost, lookup)
		if err != nil {
			t.Errorf("%q: %v", c.monHost, err)
		}
		var v1, v2 []string
		for _, m := range list {
			if m.Msgr2 {
				v2 = append(v2, m.Addr.String())
			} else {
				v1 = append(v1, m.Addr.String())
			}
		}
		if diff := cmp.Diff(c.v1, v1); diff != "" {
			t.Errorf("%q, version 1: %s", c.monHost, diff)
		}
		if diff := cmp.Diff(c.v2, v2); diff != "" {
			t.Errorf("%q, version 2: %s", c.monHost, diff)
		}
	}
}

func TestKeyOf(t *testing.T) {
	keyring := "[client.a]\n\tkey = one==\n\tcaps mon = \"allow *\"\n[client.b]\nkey=two==\n"
	for name, want := range map[string]string{"client.a": "one==", "client.b": "two==", "client.c": ""} {
		if got := keyOf(keyring, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
