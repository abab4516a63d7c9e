package journal

import (
	"cmp"
	"strconv"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/encoding"
)

// Field is a part of an event, with its name.
type Field struct {
	Name  string
	Value any // uint64, int64, bool or string
}

// Event is what happened to an image.
type Event struct {
	Type   uint32
	Name   string
	Fields []Field
	Time   time.Time
}

// part reads a part of an event into fields.
type part func(version uint8, d *encoding.Decoder) []Field

func number(name string) part {
	return func(_ uint8, d *encoding.Decoder) []Field { return []Field{{name, d.Uint64()}} }
}

func word(name string) part {
	return func(_ uint8, d *encoding.Decoder) []Field { return []Field{{name, d.Text()}} }
}

func truth(name string) part {
	return func(_ uint8, d *encoding.Decoder) []Field { return []Field{{name, d.Uint8() != 0}} }
}

func result(_ uint8, d *encoding.Decoder) []Field {
	return []Field{{"result", int64(int32(d.Uint32()))}}
}

// data is content, which is not shown.
func data(_ uint8, d *encoding.Decoder) []Field {
	d.Blob()
	return nil
}

// granularity has another meaning in each version.
func granularity(version uint8, d *encoding.Decoder) []Field {
	if version >= 5 {
		return []Field{{"discard_granularity_bytes", uint64(d.Uint32())}}
	}
	d.Uint8()
	return []Field{{"discard_granularity_bytes", uint64(0)}}
}

// namespace is the kind of a snapshot.
func namespace(version uint8, d *encoding.Decoder) []Field {
	if version < 4 {
		return []Field{{"snapshot_namespace_type", "user"}}
	}
	_, n := d.Section()
	kind := n.Uint32()
	fields := []Field{{"snapshot_namespace_type", namespaceName(kind)}}
	switch kind {
	case 1:
		fields = append(fields, Field{"group_pool", n.Uint64()}, Field{"group_id", n.Text()}, Field{"group_snapshot_id", n.Text()})
	case 2:
		fields = append(fields, Field{"original_name", n.Text()}, Field{"original_snapshot_namespace", namespaceName(n.Uint32())})
	}
	d.Err = cmp.Or(d.Err, n.Err)
	return fields
}

func namespaceName(kind uint32) string {
	if names := []string{"user", "group", "trash", "mirror"}; kind < uint32(len(names)) {
		return names[kind]
	}
	return "unknown"
}

var (
	op   = number("op_tid")
	snap = []part{op, word("snap_name"), namespace}
)

// events are the events by their number: their names and the parts that they
// have, in the order in which they are written.
var events = []struct {
	name  string
	parts []part
}{
	{"AioDiscard", []part{number("offset"), number("length"), granularity}},
	{"AioWrite", []part{number("offset"), number("length"), data}},
	{"AioFlush", nil},
	{"OpFinish", []part{op, op, result}},
	{"SnapCreate", snap},
	{"SnapRemove", snap},
	{"SnapRename", []part{op, word("dest_snap_name"), number("src_snap_id"), word("src_snap_name")}},
	{"SnapProtect", snap},
	{"SnapUnprotect", snap},
	{"SnapRollback", snap},
	{"Rename", []part{op, word("image_name")}},
	{"Resize", []part{op, number("size")}},
	{"Flatten", []part{op}},
	{"Demote/Promote", nil},
	{"SnapLimit", []part{op, number("limit")}},
	{"UpdateFeatures", []part{op, number("features"), truth("enabled")}},
	{"MetadataSet", []part{op, word("key"), word("value")}},
	{"MetadataRemove", []part{op, word("key")}},
	{"AioWriteSame", []part{number("offset"), number("length"), data}},
	{"AioCompareAndWrite", []part{number("offset"), number("length"), data, data}},
}

const snapRename = 6

// ReadEvent reads the event of an entry's data.
func ReadEvent(bytes []byte) (Event, error) {
	outer := &encoding.Decoder{Data: bytes}
	version, d := outer.Section()
	e := Event{Type: d.Uint32()}
	if e.Type < uint32(len(events)) {
		kind := events[e.Type]
		e.Name = kind.name
		for _, p := range kind.parts {
			e.Fields = append(e.Fields, p(version, d)...)
		}
		if e.Type == snapRename && d.Err == nil {
			// It is shown in another order than it is written in.
			e.Fields[1], e.Fields[2], e.Fields[3] = e.Fields[2], e.Fields[3], e.Fields[1]
		}
	} else {
		e.Name = "Unknown (" + strconv.FormatUint(uint64(e.Type), 10) + ")"
	}
	if version >= 4 {
		_, meta := outer.Section()
		seconds, nanoseconds := meta.Uint32(), meta.Uint32()
		e.Time = time.Unix(int64(seconds), int64(nanoseconds))
		outer.Err = cmp.Or(outer.Err, meta.Err)
	}
	return e, cmp.Or(outer.Err, d.Err)
}
