package librbd

/*
#include <errno.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/opt-rbd/opt-rbd/internal/encoding"
)

// Children lists the clones of an image, or of the snapshot that it is at,
// those in the trash too. With descendants it goes on to the clones of those.
// go-ceph's ListChildrenAttributes has no descendants and ends at 4096 clones.
func Children(image *rbd.Image, descendants bool) ([]rbd.ImageSpec, error) {
	// A list that is too short is made whole again, which asks the cluster for
	// each child: so this one is long at once.
	for count := C.size_t(8192); ; {
		specs := make([]C.rbd_linked_image_spec_t, count)
		var r C.int
		if descendants {
			r = C.rbd_list_descendants(pointer(image), &specs[0], &count)
		} else {
			r = C.rbd_list_children3(pointer(image), &specs[0], &count)
		}
		if r == -C.ERANGE {
			continue
		}
		if r < 0 {
			return nil, syscall.Errno(-r)
		}
		defer C.rbd_linked_image_spec_list_cleanup(&specs[0], count)
		children := make([]rbd.ImageSpec, count)
		for i, s := range specs[:count] {
			children[i] = rbd.ImageSpec{
				PoolName: C.GoString(s.pool_name), PoolNamespace: C.GoString(s.pool_namespace), PoolID: uint64(s.pool_id),
				ImageName: C.GoString(s.image_name), ImageID: C.GoString(s.image_id), Trash: bool(s.trash),
			}
		}
		return children, nil
	}
}

// ReadChildren is Children without opening any of the clones, as librbd does
// with those of the older format: for the snapshots of those ids, of an image
// of that id in a pool. It gives false where it cannot be read so; Children
// tells more.
//
// What it asks is what librbd asks: the objects rbd_children of all pools for
// clones of the older format, the image's header for those of the newer one
// (methods get_children and children_list of cls/rbd).
func ReadChildren(conn *rados.Conn, pool *rados.IOContext, id string, snaps []uint64, limit int) ([]rbd.ImageSpec, bool) {
	namespace, err := pool.GetNamespace()
	if err != nil || id == "" {
		return nil, false
	}
	pools, err := openPools(conn)
	defer func() {
		for _, p := range pools {
			p.Destroy()
		}
	}()
	if err != nil {
		return nil, false
	}
	// One list for each snapshot and pool, and one for each snapshot's clones of the newer format.
	found := make([][]rbd.ImageSpec, len(snaps)*(len(pools)+1))
	var group errgroup.Group
	group.SetLimit(limit)
	for i, snap := range snaps {
		at := i * (len(pools) + 1)
		for j, p := range pools {
			if namespace != "" {
				break // where there are namespaces there is the newer format
			}
			group.Go(func() (err error) {
				found[at+j], err = olderClones(p, pool.GetPoolID(), id, snap)
				return err
			})
		}
		group.Go(func() (err error) {
			found[at+len(pools)], err = newerClones(pool, id, snap)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, false
	}
	children := slices.Concat(found...)
	children, err = nameClones(pools, children)
	if err != nil {
		return nil, false
	}
	slices.SortFunc(children, func(a, b rbd.ImageSpec) int {
		return cmp.Or(cmp.Compare(a.PoolName, b.PoolName), cmp.Compare(a.PoolNamespace, b.PoolNamespace), cmp.Compare(a.ImageName, b.ImageName))
	})
	return children, true
}

// openPools opens all pools that are no cache of another.
func openPools(conn *rados.Conn) (pools []*rados.IOContext, err error) {
	names, err := conn.ListPools()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p, err := conn.OpenIOContext(name)
		if err != nil {
			return pools, err
		}
		var base C.int64_t
		if err := result(C.rados_pool_get_base_tier(C.rados_t(conn.Cluster()), C.int64_t(p.GetPoolID()), &base)); err != nil || int64(base) != p.GetPoolID() {
			p.Destroy()
			if err != nil {
				return pools, err
			}
			continue
		}
		pools = append(pools, p)
	}
	return pools, nil
}

// ask calls a method that only reads. What is not there answers nothing.
func ask(pool *rados.IOContext, object, method string, in []byte) (*encoding.Decoder, error) {
	op := rados.CreateReadOp()
	defer op.Release()
	step := op.Exec("rbd", method, in)
	err := op.Operate(pool, object, rados.OperationNoFlag)
	if errors.Is(err, rados.ErrNotFound) {
		return &encoding.Decoder{Data: make([]byte, 4)}, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := step.Bytes()
	return &encoding.Decoder{Data: data}, err
}

// olderClones gives the clones in a pool of a snapshot of an image in another.
func olderClones(pool *rados.IOContext, parent int64, id string, snap uint64) (clones []rbd.ImageSpec, err error) {
	in := binary.LittleEndian.AppendUint64(nil, uint64(parent))
	in = append(binary.LittleEndian.AppendUint32(in, uint32(len(id))), id...)
	ids, err := ask(pool, "rbd_children", "get_children", binary.LittleEndian.AppendUint64(in, snap))
	if err != nil {
		return nil, err
	}
	for range ids.Uint32() {
		clones = append(clones, rbd.ImageSpec{PoolID: uint64(pool.GetPoolID()), ImageID: ids.Text()})
	}
	return clones, ids.Err
}

func newerClones(pool *rados.IOContext, id string, snap uint64) (clones []rbd.ImageSpec, err error) {
	specs, err := ask(pool, "rbd_header."+id, "children_list", binary.LittleEndian.AppendUint64(nil, snap))
	if err != nil {
		return nil, err
	}
	for range specs.Uint32() {
		version, s := specs.Section()
		clone := rbd.ImageSpec{PoolID: s.Uint64(), ImageID: s.Text()}
		if version >= 2 {
			clone.PoolNamespace = s.Text()
		}
		clones = append(clones, clone)
		if s.Err != nil {
			return nil, s.Err
		}
	}
	return clones, specs.Err
}

// nameClones fills in the names of images, in the trash or not, of which the pools and ids are known. One that is not
// there is an error: what librbd makes of that depends on what there is of it (a clone that could not be made may have
// been noted with its parent).
func nameClones(pools []*rados.IOContext, clones []rbd.ImageSpec) (named []rbd.ImageSpec, err error) {
	type place struct {
		pool      uint64
		namespace string
	}
	type entry struct {
		name  string
		trash bool
	}
	places := make(map[place]map[string]entry)
	for _, c := range clones {
		at := slices.IndexFunc(pools, func(p *rados.IOContext) bool { return uint64(p.GetPoolID()) == c.PoolID })
		if at < 0 {
			return nil, rados.ErrNotFound
		}
		pool := pools[at]
		images, read := places[place{c.PoolID, c.PoolNamespace}]
		if !read {
			pool.SetNamespace(c.PoolNamespace)
			names, err := Directory(pool)
			if err != nil {
				return nil, err
			}
			trash, err := Trash(pool)
			if err != nil {
				return nil, err
			}
			images = make(map[string]entry, len(names)+len(trash))
			for _, t := range trash {
				images[t.ID] = entry{t.Name, true}
			}
			for _, n := range names {
				images[n.ID] = entry{n.Name, false}
			}
			places[place{c.PoolID, c.PoolNamespace}] = images
		}
		image, ok := images[c.ImageID]
		if !ok {
			return nil, rados.ErrNotFound
		}
		name, err := pool.GetPoolName()
		if err != nil {
			return nil, err
		}
		c.PoolName, c.ImageName, c.Trash = name, image.name, image.trash
		named = append(named, c)
	}
	return named, nil
}
