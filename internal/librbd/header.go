package librbd

/*
#include <errno.h>
#include <stdlib.h>
#include <rbd/features.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"cmp"
	"encoding/binary"

	"github.com/ceph/go-ceph/rados"

	"github.com/opt-rbd/opt-rbd/internal/encoding"
)

// Plain is what a list shows of an image that is no clone and has no snapshots.
type Plain struct {
	Size              uint64
	Locked, Exclusive bool
}

// noSnap stands for the image itself where there could be a snapshot's id.
const noSnap = ^uint64(1)

// ReadPlain reads the header of an image in one request, where opening it
// takes a dozen. It gives false for an image that is not plain, or that cannot
// be read so: opening that one tells more.
//
// The methods and what they answer are those of cls/rbd and cls/lock that
// librbd itself calls, since Ceph 14.
func ReadPlain(ioctx *rados.IOContext, id string) (Plain, bool) {
	op := rados.CreateReadOp()
	defer op.Release()
	snap := binary.LittleEndian.AppendUint64(nil, noSnap)
	lock := []byte{1, 1, 12, 0, 0, 0, 8, 0, 0, 0} // a structure of 12 bytes with a name of 8
	steps := []*rados.ReadOpExecStep{
		op.Exec("rbd", "get_size", snap),
		op.Exec("rbd", "get_features", append(snap[:8:8], 1)), // 1: only to read
		op.Exec("rbd", "get_snapcontext", nil),
		op.Exec("rbd", "parent_get", nil),
		op.Exec("lock", "get_info", append(lock, "rbd_lock"...)),
	}
	if err := op.Operate(ioctx, "rbd_header."+id, rados.OperationNoFlag); err != nil {
		return Plain{}, false
	}
	answers := make([]encoding.Decoder, len(steps))
	for i, step := range steps {
		data, err := step.Bytes()
		if err != nil {
			return Plain{}, false
		}
		answers[i].Data = data
	}
	size, features, snaps, parent, locks := &answers[0], &answers[1], &answers[2], &answers[3], &answers[4]
	_ = size.Uint8() // the order
	p := Plain{Size: size.Uint64()}
	has, incompatible := features.Uint64(), features.Uint64()
	_ = snaps.Uint64() // the latest id
	count := snaps.Uint32()
	_, spec := parent.Section()
	pool := int64(spec.Uint64())
	_, info := locks.Section()
	p.Locked, p.Exclusive = readLock(info)
	for _, d := range append(answers, *spec, *info) {
		if d.Err != nil {
			return Plain{}, false
		}
	}
	known := uint64(C.RBD_FEATURES_ALL)
	return p, has&C.RBD_FEATURE_MIGRATING == 0 && incompatible&^known == 0 && count == 0 && pool == -1
}

// readLock reads the answer of the method get_info of cls/lock.
func readLock(d *encoding.Decoder) (locked, exclusive bool) {
	n := d.Uint32()
	for range n {
		_, id := d.Section() // the client and its cookie
		_, about := d.Section()
		if d.Err = cmp.Or(d.Err, id.Err, about.Err); d.Err != nil {
			return false, false
		}
	}
	const exclusively = 1
	return n > 0, d.Uint8() == exclusively
}
