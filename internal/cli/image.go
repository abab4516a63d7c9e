package cli

import (
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// open opens the image that s names, at its snapshot where it names one. An
// image that is not opened read-only has to be closed: others see its watch
// until that times out.
func (c *call) open(s spec.Spec, readOnly bool) (*rbd.Image, error) {
	io, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return nil, err
	}
	open := rbd.OpenImage
	if readOnly {
		open = rbd.OpenImageReadOnly
	}
	image, err := open(io, s.Image, rbd.NoSnapshot)
	if err != nil {
		return nil, errno.Wrap(err, "error opening image "+s.Image)
	}
	if s.Snap == "" {
		return image, nil
	}
	if err := image.SetSnapshot(s.Snap); err != nil {
		image.Close()
		return nil, &errno.Error{
			Code: errno.Code(err), Bare: true, Err: err,
			Line: "error setting snapshot context: " + errno.Text(errno.Code(err)),
		}
	}
	return image, nil
}
