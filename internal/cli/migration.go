package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var migrationOptions = []args.Option{poolOption, namespaceOption, imageOption, noProgress}

var migrationCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"migration", "abort"},
			Operands: []args.Operand{imageSpec},
			Options:  migrationOptions,
			Short:    "Cancel interrupted image migration.",
		},
		run: func(c *call) error {
			return migrate(c, "Abort image migration", "aborting migration failed", librbd.AbortMigration, nil)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"migration", "commit"},
			Operands: []args.Operand{imageSpec},
			Options:  append(migrationOptions[:4:4], args.Option{Name: "force", Help: "proceed even if the image has children"}),
			Short:    "Commit image migration.",
		},
		run: func(c *call) error {
			return migrate(c, "Commit image migration", "committing migration failed", librbd.CommitMigration, checkDescendants)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"migration", "execute"},
			Operands: []args.Operand{imageSpec},
			Options:  migrationOptions,
			Short:    "Execute image migration.",
		},
		run: func(c *call) error {
			return migrate(c, "Image migration", "migration failed", librbd.ExecuteMigration, nil)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"migration", "prepare"},
			Operands: []args.Operand{sourceSpec, destSpec},
			Options: slices.Concat(
				[]args.Option{
					{Name: "import-only", Help: "only import data from source"},
					{Name: "source-spec-path", Arg: "arg", Help: "source-spec file (or '-' for stdin)"},
					{Name: "source-spec", Arg: "arg", Help: "source-spec"},
					sourcePoolOption, sourceNamespaceOption, sourceImageOption, sourceSnapOption,
					destPoolOption, destNamespaceOption, destOption,
				},
				formatOptions, createOptions,
				[]args.Option{{Name: "flatten", Help: "fill clone with parent data (make it independent)"}},
			),
			Short: "Prepare image migration.",
			Long:  featureLegend,
		},
		run: migrationPrepare,
	},
}

// migrate does a step of a migration, after a check where there is one.
func migrate(c *call, operation, failed string, step func(*rados.IOContext, string, librbd.Progress) error, check func(*call, *rados.IOContext, string) error) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	// It has to end in a pool that is full.
	if err := pool.SetPoolFullTry(); err != nil {
		return err
	}
	if check != nil {
		if err := check(c, pool, s.Image); err != nil {
			return err
		}
	}
	err = c.withProgress(operation, 0, func(p librbd.Progress) error { return step(pool, s.Image, p) })
	return errno.Wrap(err, failed)
}

// checkDescendants warns of clones, which a commit that is not forced leaves alone.
func checkDescendants(c *call, pool *rados.IOContext, name string) error {
	status, err := rbd.MigrationStatus(pool, name)
	if err != nil {
		return errno.Wrap(err, "getting migration status failed")
	}
	poolName, err := c.poolName(int64(status.DestPoolID), "")
	if err == nil && poolName == "" {
		err = syscall.ENOENT
	}
	if err != nil {
		return errno.Wrap(err, fmt.Sprintf("accessing source pool id=%d failed", status.DestPoolID))
	}
	_, image, err := c.openImage(spec.Spec{Pool: poolName, Namespace: status.DestPoolNamespace}, status.DestImageID, true)
	if err != nil {
		return err
	}
	defer image.Close()
	clones, err := librbd.Descendants(image)
	if err != nil {
		return errno.Wrap(err, "listing descendants failed")
	}
	if len(clones) == 0 {
		return nil
	}
	which := "descendants"
	if len(clones) == 1 {
		which = "a descendant"
	}
	fmt.Fprintf(c.stderr, "rbd: the image has %s: \n", which)
	for _, clone := range clones {
		trash := ""
		if clone.Trash {
			trash = " (trash " + clone.ID + ")"
		}
		fmt.Fprintf(c.stderr, "  %s%s\n", spec.Spec{Pool: clone.Pool, Namespace: clone.Namespace, Image: clone.Name}, trash)
	}
	fmt.Fprintln(c.stderr, "Warning: in-use, read-only descendant images will not detect the parent update.")
	if c.Bool("force") {
		fmt.Fprintln(c.stderr, "Proceeding anyway due to force flag set.")
		return nil
	}
	return &errno.Error{
		Code: syscall.EBUSY, Bare: true,
		Line: "Ensure no descendant images are opened read-only and run again with force flag.",
	}
}

// sourceDescription is the JSON that says where an import comes from.
func (c *call) sourceDescription() (string, error) {
	path := c.String("source-spec-path")
	switch {
	case c.IsSet("source-spec") && c.IsSet("source-spec-path"):
		return "", errno.Errorf(syscall.EINVAL, "cannot specify both source-spec and source-spec-path")
	case !c.IsSet("source-spec-path"):
		return c.String("source-spec"), nil
	}
	return readText(path, 4095, "error reading source-spec file")
}

// readText reads at most so many bytes of a file, or of stdin where that is "-".
func readText(path string, most int64, failed string) (string, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return "", &errno.Error{Code: errno.Code(err), Line: "error opening " + path, Err: err}
		}
		defer f.Close()
	}
	data, err := io.ReadAll(io.LimitReader(f, most))
	return string(data), errno.Wrap(err, failed)
}

func migrationPrepare(c *call) error {
	imports := c.Bool("import-only")
	form, snap := spec.Form{}, ""
	if imports {
		form.Snap, snap = spec.MaySnap, "snap"
	}
	s, err := c.specBy(form, "pool", "namespace", "image", snap)
	if err != nil {
		return err
	}
	d, err := withoutSnap(c.dest(spec.Form{Names: spec.New, Optional: true, Snap: spec.MaySnap}, spec.Spec{}))
	if err != nil {
		return err
	}
	source, err := c.sourceDescription()
	if err != nil {
		return err
	}
	// Before there is a connection: librados takes a journal's layout only then.
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	if err := c.imageOptions(options, true); err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	target, name := pool, s.Image
	if source == "" {
		name = d.Image
		if target, err = c.cluster.Pool(d.Pool, d.Namespace); err != nil {
			return err
		}
	}
	switch {
	case imports && source == "":
		if s.Snap == "" {
			return errno.Errorf(syscall.EINVAL, "snapshot name was not specified")
		}
		// The names stand in it as they are, as in the genuine tool: librbd
		// refuses what is no JSON then.
		source = fmt.Sprintf(`{"type":"native","pool_id":%d,"pool_namespace":"%s","image_name":"%s","snap_name":"%s"}`,
			pool.GetPoolID(), s.Namespace, s.Image, s.Snap)
		if name == "" {
			return errno.Errorf(syscall.EINVAL, "destination image name must be provided")
		}
	case !imports && source != "":
		return errno.Errorf(syscall.EINVAL, "--import-only must be used in combination with source-spec/source-spec-path")
	case s.Snap != "":
		return errno.Errorf(syscall.EINVAL, "snapshot name specified for a command that doesn't use it")
	}
	if c.Bool("flatten") {
		if err := options.SetUint64(librbd.ImageOptionFlatten, 1); err != nil {
			return err
		}
	}
	if source != "" {
		err := rbd.MigrationPrepareImport(strings.TrimRight(source, "\x00"), target, name, options)
		return errno.Wrap(err, "preparing import migration failed")
	}
	if name == "" {
		name = s.Image
	}
	return errno.Wrap(rbd.MigrationPrepare(pool, s.Image, target, name, options), "preparing migration failed")
}
