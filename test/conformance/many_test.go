package conformance

import (
	"fmt"
	"maps"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/go-cmp/cmp"
)

// A list of names takes several requests where there are many. It reads the
// pool's directory only, so that the images need but be named there.
func TestManyNames(t *testing.T) {
	c := ours.cluster
	if _, err := c.MonCommand(`{"prefix": "osd pool create", "pool": "many", "pg_num": 8}`); err != nil {
		t.Fatal(err)
	}
	defer func() { // a hint of another test names the pools that there are
		if _, err := c.MonCommand(`{"prefix": "osd pool delete", "pool": "many", "pool2": "many", "yes_i_really_really_mean_it": true}`); err != nil {
			t.Error(err)
		}
	}()
	text := func(s string) []byte { return append([]byte{byte(len(s)), 0, 0, 0}, s...) }
	for _, n := range []int{0, 1, 1023, 1024, 1025, 2048, 5000} {
		names := make(map[string][]byte)
		for i := range n {
			// Not in the order that they are made in, and one the beginning of another.
			name, id := fmt.Sprintf("é-%d", i), fmt.Sprintf("%012x", i)
			maps.Copy(names, map[string][]byte{"name_" + name: text(id), "id_" + id: text(name)})
		}
		// In the cluster's network, which the threads of librados are born into.
		if err := c.Do(func() error {
			conn, err := rados.NewConn()
			if err != nil {
				return err
			}
			defer conn.Shutdown()
			if err := conn.ReadConfigFile(c.Conf()); err != nil {
				return err
			}
			if err := conn.Connect(); err != nil {
				return err
			}
			io, err := conn.OpenIOContext("many")
			if err != nil {
				return err
			}
			defer io.Destroy()
			return io.SetOmap("rbd_directory", names)
		}); err != nil {
			t.Fatal(err)
		}
		for _, line := range [][]string{{"ls", "many"}, {"ls", "many", "--format", "json"}} {
			want, err := ours.run(genuine.program, line, "")
			if err != nil || want.code != 0 {
				t.Fatal(want, err)
			}
			got, err := ours.run(ours.program, line, "")
			if err != nil || got.code != 0 {
				t.Fatal(got, err)
			}
			if diff := cmp.Diff(want.raw, got.raw); diff != "" {
				t.Errorf("%v of %d names: %s", line, n, diff)
			}
		}
	}
}
