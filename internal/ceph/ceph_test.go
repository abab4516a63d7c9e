package ceph

import "testing"

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
