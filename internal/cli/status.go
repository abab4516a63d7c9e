package cli

import (
	"fmt"
	"io"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
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
		image, err := c.open(s, true)
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
		var m *migration
		if features&rbd.FeatureMigrating != 0 {
			if m, err = readMigration(c, s); err != nil {
				// The rest is worth showing all the same.
				c.stdout.Flush()
				printError(errno.Wrap(err, "getting migration status failed"), c.stderr)
			}
		}
		if f == nil {
			printStatus(c.stdout, watchers, m)
			return nil
		}
		writeStatus(f, watchers, m)
		return f.Flush(c.stdout)
	},
}

func printStatus(w io.Writer, watchers []rbd.ImageWatcher, m *migration) {
	if len(watchers) == 0 {
		fmt.Fprintln(w, "Watchers: none")
	} else {
		fmt.Fprintln(w, "Watchers:")
		for _, one := range watchers {
			fmt.Fprintf(w, "\twatcher=%s client.%d cookie=%d\n", one.Addr, one.Id, one.Cookie)
		}
	}
	if m == nil {
		return
	}
	fmt.Fprintln(w, "Migration:")
	fmt.Fprintf(w, "\tsource: %s\n", m.source)
	fmt.Fprintf(w, "\tdestination: %s\n", m.dest)
	fmt.Fprintf(w, "\tstate: %s", m.state)
	if m.StateDescription != "" {
		fmt.Fprintf(w, " (%s)", m.StateDescription)
	}
	fmt.Fprintln(w)
}

func writeStatus(f output.Formatter, watchers []rbd.ImageWatcher, m *migration) {
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
		f.String("source_pool_name", m.sourcePool)
		f.String("source_pool_namespace", m.SourcePoolNamespace)
		f.String("source_image_name", m.SourceImageName)
		f.String("source_image_id", m.SourceImageID)
		f.String("dest_pool_name", m.destPool)
		f.String("dest_pool_namespace", m.DestPoolNamespace)
		f.String("dest_image_name", m.DestImageName)
		f.String("dest_image_id", m.DestImageID)
		f.String("state", m.state)
		f.String("state_description", m.StateDescription)
		f.Close()
	}
	f.Close()
}

// migration is where an image moves from and to.
type migration struct {
	*rbd.MigrationImageStatus
	sourcePool, destPool string
	source, dest         string // as one spec, with the image's id
	state                string
}

func readMigration(c *call, s spec.Spec) (*migration, error) {
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return nil, err
	}
	status, err := rbd.MigrationStatus(pool, s.Image)
	if err != nil {
		return nil, err
	}
	m := &migration{MigrationImageStatus: status, state: "unknown"}
	// An id below zero: the image comes from no pool of this cluster.
	if m.SourcePoolID >= 0 {
		if m.sourcePool, err = c.poolName(int64(m.SourcePoolID), fmt.Sprintf("<missing image pool %d>", m.SourcePoolID)); err != nil {
			return nil, err
		}
	}
	if m.destPool, err = c.poolName(int64(m.DestPoolID), fmt.Sprintf("<missing image pool %d>", m.DestPoolID)); err != nil {
		return nil, err
	}
	place := func(pool, namespace, image, id string) string {
		text := spec.Spec{Pool: pool, Namespace: namespace, Image: image}.String()
		if id != "" {
			text += " (" + id + ")"
		}
		return text
	}
	m.source = place(m.sourcePool, m.SourcePoolNamespace, m.SourceImageName, m.SourceImageID)
	m.dest = place(m.destPool, m.DestPoolNamespace, m.DestImageName, m.DestImageID)
	switch m.State {
	case rbd.MigrationImageError:
		m.state = "error"
	case rbd.MigrationImagePreparing:
		m.state = "preparing"
	case rbd.MigrationImagePrepared:
		m.state = "prepared"
	case rbd.MigrationImageExecuting:
		m.state = "executing"
	case rbd.MigrationImageExecuted:
		m.state = "executed"
	case rbd.MigrationImageAborting:
		m.state = "aborting"
	}
	return m, nil
}
