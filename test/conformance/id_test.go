package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// imageID makes an image with the genuine tool and gives its id.
func (s *side) imageID(name string) (string, error) {
	if a, err := s.run(genuine.program, []string{"create", name, "--size", "8M"}, ""); err != nil || a.code != 0 {
		return "", fmt.Errorf("create %s: %w: %s", name, err, a)
	}
	out, err := s.cluster.Command(context.Background(), genuine.program, "info", name, "--format", "json").Output()
	if err != nil {
		return "", err
	}
	var info struct{ ID string }
	return info.ID, json.Unmarshal(out, &info)
}

// Images can be named by ids, which no file of lines can know.
func TestImageID(t *testing.T) {
	// Snapshots are numbered by their pool.
	both(t, func(s *side) (answer, error) { return answer{}, s.emptyPool() })
	ids := make(map[*side]string)
	for _, s := range []*side{genuine, ours} {
		id, err := s.imageID("by-id")
		if err != nil {
			t.Fatal(err)
		}
		ids[s] = id
	}
	for _, line := range []string{
		"info --image-id ID",
		"info --image-id ID --format json",
		"info by-id --image-id ID",
		"info --image by-id --image-id ID",
		"info @s --image-id ID",
		"info --image-id ID -p nopool",
		"snap create by-id@s --no-progress",
		"snap create by-id@t --no-progress",
		"info --image-id ID --snap s",
		"info --image-id ID --snap none",
		"snap ls --image-id ID",
		"snap ls by-id --image-id ID",
		"snap ls --image-id ID --format json",
		"snap rm --image-id ID",
		"snap rm --image-id ID by-id@s",
		"snap rm --image-id ID --snap s --snap-id 1",
		"snap rm --image-id ID --snap none",
		"snap rm --image-id ID --snap s",
		"snap rm by-id --snap-id 4 --force",
		"snap rm by-id --snap-id 4 --no-progress",
		"snap rm by-id --snap-id 18446744073709551614",
		"snap rm by-id --snap-id -1",
		"snap rm by-id --snap-id ''",
		"rm by-id",
	} {
		words, err := splitWords(line)
		if err != nil {
			t.Fatal(err)
		}
		g, o := both(t, func(s *side) (answer, error) {
			own := make([]string, len(words))
			for i, w := range words {
				own[i] = strings.ReplaceAll(w, "ID", ids[s])
			}
			a, err := s.run(s.program, own, "")
			a.stderr = strings.ReplaceAll(a.stderr, ids[s], "ID")
			return a, err
		})
		if diff := compare(g, o, false); diff != "" {
			t.Errorf("%s\n%s", line, diff)
		}
	}
}

// The state of a persistent cache lies in an image's metadata and counts only
// with a feature that nothing but such a cache sets, which Debian's librbd
// does not have: it is written into the image's header here.
func TestPersistentCache(t *testing.T) {
	const key = ".rbd_persistent_cache_state"
	features := []byte{0x3d, 0x08, 0, 0, 0, 0, 0, 0} // the usual ones and dirty-cache, little endian
	both(t, func(s *side) (answer, error) {
		id, err := s.imageID("cached")
		if err != nil {
			return answer{}, err
		}
		file := filepath.Join(s.dir, "features")
		if err := os.WriteFile(file, features, 0o600); err != nil {
			return answer{}, err
		}
		set := s.cluster.Command(context.Background(), "rados", "-p", "rbd", "setomapval", "rbd_header."+id, "features", "--input-file", file)
		if out, err := set.CombinedOutput(); err != nil {
			return answer{}, fmt.Errorf("rados setomapval: %w: %s", err, out)
		}
		return answer{}, nil
	})
	for _, state := range []string{
		"",
		"no JSON",
		`{"host":"node1","path":"/pwl/rbd-pwl.rbd.1.pool","size":1073741824,"mode":"ssd","stats_timestamp":1700000000,` +
			`"present":true,"empty":false,"clean":true,"allocated_bytes":1000,"cached_bytes":2000000,"dirty_bytes":0,"free_bytes":1073000000,` +
			`"hits_full":3,"hits_partial":1,"misses":6,"hit_bytes":4096,"miss_bytes":12288}`,
	} {
		if state != "" {
			both(t, func(s *side) (answer, error) {
				return s.run(genuine.program, []string{"image-meta", "set", "cached", key, state}, "")
			})
		}
		for _, line := range []string{"status cached", "status cached --format json", "status cached --format xml --pretty-format", "info cached"} {
			g, o := both(t, func(s *side) (answer, error) { return s.run(s.program, strings.Fields(line), "") })
			if diff := compare(g, o, false); diff != "" {
				t.Errorf("%s, state %q\n%s", line, state, diff)
			}
			if strings.Contains(line, "status") && strings.HasPrefix(state, "{") != strings.Contains(g.stdout, "node1") {
				t.Errorf("%s does not say what it should: %s", line, g)
			}
		}
	}
}
