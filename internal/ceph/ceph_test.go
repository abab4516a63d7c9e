package ceph

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		{"[v2:[fd00::1]:3300/0,v1:[fd00::1]:6789/0]", []string{"[fd00::1]:6789"}, []string{"[fd00::1]:3300"}},
	} {
		list, err := monitors(c.monHost)
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

func TestKeyringKey(t *testing.T) {
	keyring := "[client.a]\n\tkey = one==\n\tcaps mon = \"allow *\"\n[client.b]\nkey=two==\n"
	for name, want := range map[string]string{"client.a": "one==", "client.b": "two==", "client.c": ""} {
		if got := keyringKey(keyring, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestValidKey(t *testing.T) {
	// The first was made for this test; it opens nothing.
	key := "AQC2PQZrAAAAABAAAAAAAAAAAAAAAAAAAAAAAA=="
	for text, want := range map[string]bool{
		key: true, key + "\n": true, "": false, "abc": false, " " + key: false, key[:20]: false, "AQ==": false,
	} {
		if validKey(text) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}
