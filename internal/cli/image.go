package cli

import (
	"errors"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// imageTwice is the usual error, with the space at its end.
const imageTwice = "trying to access image using both name and id. "

// specOrID is spec for commands that can name the image by --image-id instead;
// s.Image is then empty. both is the error where it is named twice.
func (c *call) specOrID(form spec.Form, both string) (s spec.Spec, id string, err error) {
	id = c.String("image-id")
	form.Optional = form.Optional || id != ""
	s, err = c.spec(form)
	if err == nil && id != "" && s.Image != "" {
		err = errno.Errorf(syscall.EINVAL, "%s", both)
	}
	return s, id, err
}

// open opens the image that s names, at its snapshot where it names one. An
// image that is not opened read-only has to be closed: others see its watch
// until that times out.
func (c *call) open(s spec.Spec, readOnly bool) (*rbd.Image, error) {
	_, image, err := c.openImage(s, "", readOnly)
	return image, err
}

// openSource opens an image that is only read.
func (c *call) openSource(s spec.Spec) (*rbd.Image, error) { return c.open(s, true) }

// openImage is open for an image that may be named by its id, and gives its
// pool, too.
func (c *call) openImage(s spec.Spec, id string, readOnly bool) (*rados.IOContext, *rbd.Image, error) {
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return nil, nil, err
	}
	return c.openIn(pool, s, id, readOnly)
}

// openToChange is openImage for an image that is changed.
func (c *call) openToChange(s spec.Spec, id string) (*rados.IOContext, *rbd.Image, error) {
	return c.openImage(s, id, false)
}

// openFull is openImage to remove something, which has to work in a pool that
// is full.
func (c *call) openFull(s spec.Spec, id string) (*rados.IOContext, *rbd.Image, error) {
	pool, err := c.fullPool(s)
	if err != nil {
		return nil, nil, err
	}
	return c.openIn(pool, s, id, false)
}

func (c *call) openIn(pool *rados.IOContext, s spec.Spec, id string, readOnly bool) (*rados.IOContext, *rbd.Image, error) {
	name, what := s.Image, s.Image
	open := rbd.OpenImage
	switch {
	case id != "" && readOnly:
		open = rbd.OpenImageByIdReadOnly
	case id != "":
		open = rbd.OpenImageById
	case readOnly:
		open = rbd.OpenImageReadOnly
	}
	if id != "" {
		name, what = id, "with id "+id
	}
	image, err := open(pool, name, rbd.NoSnapshot)
	if err != nil {
		return nil, nil, errno.Wrap(&missing{pool: pool, image: name, err: err}, "error opening image "+what)
	}
	if s.Snap == "" {
		return pool, image, nil
	}
	if err := image.SetSnapshot(s.Snap); err != nil {
		image.Close()
		return nil, nil, bareError(&missing{pool: pool, image: name, snap: s.Snap, err: err}, "error setting snapshot context")
	}
	return pool, image, nil
}

// missing is why an image, or a snapshot of it, could not be opened.
type missing struct {
	pool        *rados.IOContext
	image, snap string
	err         error
}

func (m *missing) Error() string { return m.err.Error() }
func (m *missing) Unwrap() error { return m.err }

// read opens the image that the line names, to print something of it.
func (c *call) read() (output.Formatter, *rbd.Image, error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return nil, nil, err
	}
	f, err := c.formatter()
	if err != nil {
		return nil, nil, err
	}
	image, err := c.open(s, true)
	return f, image, err
}

// change opens an image to do something to it, and closes it.
func (c *call) change(s spec.Spec, do func(*rbd.Image) error) (err error) {
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	return do(image)
}

// withImage is change for the image that the line names.
func (c *call) withImage(do func(*rbd.Image) error) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	return c.change(s, do)
}
