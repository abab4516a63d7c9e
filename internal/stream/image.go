package stream

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Property is a property of an image that is a number.
type Property byte

// The properties of images, in the order in which they are written.
const (
	Order       Property = 'O'
	Features    Property = 'T'
	StripeUnit  Property = 'U'
	StripeCount Property = 'C'
)

const (
	propertyMeta = 'M'
	propertyEnd  = 'E'
)

// Header is what a stream says of an image before its content.
type Header struct {
	Properties map[Property]uint64
	Meta       map[string]string
}

// WriteImage writes the header of an image and that of its diffs, of which
// there have to follow as many as count says: one for each snapshot and one
// for the image itself, in version 2.
func WriteImage(w io.Writer, h Header, count uint64) error {
	buf := []byte(bannerImage2)
	for _, p := range []Property{Order, Features, StripeUnit, StripeCount} {
		buf = append(buf, byte(p))
		buf = binary.LittleEndian.AppendUint64(buf, 8)
		buf = binary.LittleEndian.AppendUint64(buf, h.Properties[p])
	}
	for _, key := range slices.Sorted(maps.Keys(h.Meta)) {
		buf = append(buf, propertyMeta)
		buf = binary.LittleEndian.AppendUint64(buf, uint64(len(key)+len(h.Meta[key])+8))
		buf = appendText(appendText(buf, key), h.Meta[key])
	}
	buf = append(buf, propertyEnd)
	buf = append(buf, bannerDiffs2...)
	buf = binary.LittleEndian.AppendUint64(buf, count)
	_, err := w.Write(buf)
	return err
}

// ReadHeader reads the header of an image. warn hears of what is ignored.
func ReadHeader(r io.Reader, warn func(string)) (Header, error) {
	in := newInput(r)
	h := Header{Properties: make(map[Property]uint64), Meta: make(map[string]string)}
	if err := in.banner(bannerImage2); err != nil {
		return h, err
	}
	for {
		tag, err := in.byte("tag")
		if err != nil || tag == propertyEnd {
			return h, err
		}
		length, err := in.uint64("tag length")
		if err != nil {
			return h, err
		}
		switch Property(tag) {
		case Order, Features, StripeUnit, StripeCount:
			var n uint64
			if n, err = in.uint64("image option"); err == nil {
				h.Properties[Property(tag)] = n
			}
		case propertyMeta:
			var key, value string
			if key, err = in.text(length, "metadata key"); err == nil {
				value, err = in.text(length, "metadata value")
				h.Meta[key] = value
			}
		default:
			warn(fmt.Sprintf("invalid tag in image properties zone: %cSkip it.", tag))
			err = in.skip(length, "skipped tag data")
		}
		if err != nil {
			return h, err
		}
	}
}

// ReadCount reads how many diffs follow the header of an image.
func ReadCount(r io.Reader) (uint64, error) {
	in := newInput(r)
	if err := in.banner(bannerDiffs2); err != nil {
		return 0, err
	}
	return in.uint64("diff count")
}
