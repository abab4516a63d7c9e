package conformance

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/test/lab/directory"
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
	for _, n := range []int{0, 1, 1023, 1024, 1025, 2048, 5000} {
		// Not in the order that they are made in, and one the beginning of another.
		if err := directory.Fill(c, "many", n, func(i int) string { return fmt.Sprintf("é-%d", i) }); err != nil {
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
