package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var statusCommand = &command{
	Command: args.Command{
		Path:     []string{"status"},
		Operands: []args.Operand{imageSpec},
		Options:  []args.Option{poolOption, namespaceOption, imageOption, formatOption, prettyOption},
		Short:    "Show the status of this image.",
	},
	run: func(c *call) error {
		s, err := c.spec(spec.Form{})
		if err != nil {
			return err
		}
		f, err := c.formatter()
		if err != nil {
			return err
		}
		pool, image, err := c.openImage(s, "", true)
		if err != nil {
			return err
		}
		watchers, err := image.ListWatchers()
		if err != nil {
			return errno.Wrap(err, "show status failed")
		}
		features, err := image.GetFeatures()
		if err != nil {
			return errno.Wrap(err, "show status failed")
		}
		// Where these cannot be told, the rest is worth showing all the same.
		var m *migration
		if features&rbd.FeatureMigrating != 0 {
			if m, err = readMigration(c, pool, image, s.Image); err != nil {
				printError(err, c.stderr)
			}
		}
		var cache *cacheState
		if features&librbd.FeatureDirtyCache != 0 {
			if cache, err = readCacheState(image); err != nil {
				printError(err, c.stderr)
			}
		}
		if f == nil {
			printStatus(c.stdout, watchers, m, cache)
			return nil
		}
		writeStatus(f, watchers, m, cache)
		return f.Flush(c.stdout)
	},
}

func printStatus(w io.Writer, watchers []rbd.ImageWatcher, m *migration, cache *cacheState) {
	if len(watchers) == 0 {
		fmt.Fprintln(w, "Watchers: none")
	} else {
		fmt.Fprintln(w, "Watchers:")
		for _, one := range watchers {
			fmt.Fprintf(w, "\twatcher=%s client.%d cookie=%d\n", one.Addr, one.Id, one.Cookie)
		}
	}
	if m != nil {
		fmt.Fprintln(w, "Migration:")
		fmt.Fprintf(w, "\tsource: %s\n", m.source())
		fmt.Fprintf(w, "\tdestination: %s\n", place(m.destPool, m.DestPoolNamespace, m.DestImageName, m.DestImageID))
		fmt.Fprintf(w, "\tstate: %s", m.state())
		if m.StateDescription != "" {
			fmt.Fprintf(w, " (%s)", m.StateDescription)
		}
		fmt.Fprintln(w)
	}
	if cache != nil {
		cache.print(w)
	}
}

func writeStatus(f output.Formatter, watchers []rbd.ImageWatcher, m *migration, cache *cacheState) {
	f.OpenObject("status")
	f.OpenArray("watchers")
	for _, one := range watchers {
		f.OpenObject("watcher")
		f.String("address", one.Addr)
		f.Int("client", one.Id)
		f.Uint("cookie", one.Cookie)
		f.Close()
	}
	f.Close()
	if m != nil {
		f.OpenObject("migration")
		if m.sourceSpec != "" {
			f.String("source_spec", m.sourceSpec)
		} else {
			f.String("source_pool_name", m.sourcePool)
			f.String("source_pool_namespace", m.SourcePoolNamespace)
			f.String("source_image_name", m.SourceImageName)
			f.String("source_image_id", m.SourceImageID)
		}
		f.String("dest_pool_name", m.destPool)
		f.String("dest_pool_namespace", m.DestPoolNamespace)
		f.String("dest_image_name", m.DestImageName)
		f.String("dest_image_id", m.DestImageID)
		f.String("state", m.state())
		f.String("state_description", m.StateDescription)
		f.Close()
	}
	if cache != nil {
		cache.write(f)
	}
	f.Close()
}

// migration is where an image moves from and to.
type migration struct {
	*rbd.MigrationImageStatus
	sourcePool, destPool string
	sourceSpec           string // of an image that comes from no pool of this cluster
}

func readMigration(c *call, pool *rados.IOContext, image *rbd.Image, name string) (*migration, error) {
	status, err := rbd.MigrationStatus(pool, name)
	if err != nil {
		return nil, errno.Wrap(err, "getting migration status failed")
	}
	m := &migration{MigrationImageStatus: status}
	if m.SourcePoolID >= 0 {
		m.sourcePool, err = c.poolName(int64(m.SourcePoolID), strconv.Itoa(m.SourcePoolID))
	} else if m.sourceSpec, err = librbd.MigrationSource(image); err != nil {
		return nil, errno.Wrap(err, "getting migration source spec failed")
	}
	if err != nil {
		return nil, err
	}
	m.destPool, err = c.poolName(int64(m.DestPoolID), strconv.Itoa(m.DestPoolID))
	return m, err
}

func (m *migration) source() string {
	if m.sourceSpec != "" {
		return m.sourceSpec
	}
	return place(m.sourcePool, m.SourcePoolNamespace, m.SourceImageName, m.SourceImageID)
}

func (m *migration) state() string {
	switch m.State {
	case rbd.MigrationImageError:
		return "error"
	case rbd.MigrationImagePreparing:
		return "preparing"
	case rbd.MigrationImagePrepared:
		return "prepared"
	case rbd.MigrationImageExecuting:
		return "executing"
	case rbd.MigrationImageExecuted:
		return "executed"
	case rbd.MigrationImageAborting:
		return "aborting"
	}
	return "unknown"
}

// place is an image as one spec, with its id where it has one.
func place(pool, namespace, image, id string) string {
	text := spec.Spec{Pool: pool, Namespace: namespace, Image: image}.String()
	if id != "" {
		text += " (" + id + ")"
	}
	return text
}

// cacheState is what the persistent write-back cache of an image wrote down
// of itself, in the image's metadata.
type cacheState struct {
	Host      string `json:"host"`
	Path      string `json:"path"`
	Size      uint64 `json:"size"`
	Mode      string `json:"mode"`
	Time      int64  `json:"stats_timestamp"`
	Present   bool   `json:"present"`
	Empty     bool   `json:"empty"`
	Clean     bool   `json:"clean"`
	Allocated uint64 `json:"allocated_bytes"`
	Cached    uint64 `json:"cached_bytes"`
	Dirty     uint64 `json:"dirty_bytes"`
	Free      uint64 `json:"free_bytes"`
	Full      uint64 `json:"hits_full"`
	Partial   uint64 `json:"hits_partial"`
	Misses    uint64 `json:"misses"`
	HitBytes  uint64 `json:"hit_bytes"`
	MissBytes uint64 `json:"miss_bytes"`
}

func readCacheState(image *rbd.Image) (*cacheState, error) {
	text, err := image.GetMetadata(".rbd_persistent_cache_state")
	if err != nil {
		err = errno.Wrap(err, "getting persistent cache state failed")
	}
	state := new(cacheState)
	if json.Unmarshal([]byte(text), state) != nil {
		return nil, errors.Join(err, errors.New("parsing persistent cache state failed"))
	}
	return state, nil
}

func percent(part, whole uint64) uint64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

func (s *cacheState) print(w io.Writer) {
	reads := s.Full + s.Partial + s.Misses
	fmt.Fprintln(w, "Persistent cache state:")
	fmt.Fprintf(w, "\thost: %s\n", s.Host)
	fmt.Fprintf(w, "\tpath: %s\n", s.Path)
	fmt.Fprintf(w, "\tsize: %s\n", output.Size(s.Size))
	fmt.Fprintf(w, "\tmode: %s\n", s.Mode)
	fmt.Fprintf(w, "\tstats_timestamp: %s\n", librbd.CTime(s.Time))
	fmt.Fprintf(w, "\tpresent: %t\tempty: %t\tclean: %t\n", s.Present, s.Empty, s.Clean)
	fmt.Fprintf(w, "\tallocated: %s\n", output.Size(s.Allocated))
	fmt.Fprintf(w, "\tcached: %s\n", output.Size(s.Cached))
	fmt.Fprintf(w, "\tdirty: %s\n", output.Size(s.Dirty))
	fmt.Fprintf(w, "\tfree: %s\n", output.Size(s.Free))
	fmt.Fprintf(w, "\thits_full: %d / %d%%\n", s.Full, percent(s.Full, reads))
	fmt.Fprintf(w, "\thits_partial: %d / %d%%\n", s.Partial, percent(s.Partial, reads))
	fmt.Fprintf(w, "\tmisses: %d\n", s.Misses)
	fmt.Fprintf(w, "\thit_bytes: %s / %d%%\n", output.Size(s.HitBytes), percent(s.HitBytes, s.HitBytes+s.MissBytes))
	fmt.Fprintf(w, "\tmiss_bytes: %s\n", output.Size(s.MissBytes))
}

func (s *cacheState) write(f output.Formatter) {
	reads := s.Full + s.Partial + s.Misses
	f.OpenObject("persistent_cache")
	f.String("host", s.Host)
	f.String("path", s.Path)
	f.Uint("size", s.Size)
	f.String("mode", s.Mode)
	f.String("stats_timestamp", librbd.CTime(s.Time))
	f.Bool("present", s.Present)
	f.Bool("empty", s.Empty)
	f.Bool("clean", s.Clean)
	f.Uint("allocated_bytes", s.Allocated)
	f.Uint("cached_bytes", s.Cached)
	f.Uint("dirty_bytes", s.Dirty)
	f.Uint("free_bytes", s.Free)
	f.Uint("hits_full", s.Full)
	f.Uint("hits_full_percent", percent(s.Full, reads))
	f.Uint("hits_partial", s.Partial)
	f.Uint("hits_partial_percent", percent(s.Partial, reads))
	f.Uint("misses", s.Misses)
	f.Uint("hit_bytes", s.HitBytes)
	f.Uint("hit_bytes_percent", percent(s.HitBytes, s.HitBytes+s.MissBytes))
	f.Uint("miss_bytes", s.MissBytes)
	f.Close()
}
