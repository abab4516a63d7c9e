package cluster

import (
	"strings"
	"testing"
	"time"
)

func TestMemstore(t *testing.T) {
	began := time.Now()
	c := Start(t, Options{})
	t.Logf("serves after %v", time.Since(began).Round(time.Millisecond))
	if r := c.Rbd("create", "disk", "--size", "16M"); r.Code != 0 {
		t.Fatalf("rbd create: %+v", r)
	}
	t.Logf("from nothing to a finished rbd create: %v", time.Since(began).Round(time.Millisecond))
	if r := c.Rbd("ls"); strings.TrimSpace(r.Stdout) != "disk" {
		t.Fatalf("rbd ls: %+v", r)
	}
}

func TestUserHasOnlyItsCapabilities(t *testing.T) {
	c := Start(t, Options{})
	path, err := c.AddUser("client.reader", "mon", "profile rbd", "osd", "profile rbd-read-only pool=rbd")
	if err != nil {
		t.Fatal(err)
	}
	if path != c.Keyring("client.reader") {
		t.Errorf("keyring at %s", path)
	}
	if r := c.Rbd("--id", "reader", "ls"); r.Code != 0 {
		t.Errorf("rbd ls: %+v", r)
	}
	if r := c.Rbd("--id", "reader", "create", "disk", "--size", "16M"); r.Code != 1 {
		t.Errorf("rbd create without the right: %+v", r)
	}
	secret, err := c.Secret("client.reader")
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Rbd("--id", "reader", "--key", secret, "-k", "/dev/null", "ls"); r.Code != 0 {
		t.Errorf("rbd ls by key: %+v", r)
	}
	if r := c.Rbd("--id", "nobody", "ls"); r.Code == 0 {
		t.Errorf("rbd ls of an unknown user: %+v", r)
	}
}
