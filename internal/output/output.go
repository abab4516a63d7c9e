// Package output prints what the commands have to say in the forms that
// scripts around Ceph already read: JSON and XML as Ceph's Formatter writes
// them, aligned tables, sizes and the progress line.
//
// It knows nothing of clusters, images or the command line, links no C and
// depends on no more than the standard library and golang.org/x/term, so that the static launcher can
// print the list of mapped devices with it. It is no general encoder either:
// for anything that Ceph's tools do not print, use encoding/json.
package output

import (
	"errors"
	"io"
)

// ErrPretty tells that a pretty form was asked for without a structured one.
var ErrPretty = errors.New("--pretty-format only works when --format is json or xml")

// Formatter writes one structured document. Sections nest: every Open needs
// its Close. A name is the key in a JSON object and the element in XML;
// JSON drops the names of what stands directly in an array.
//
// Nothing is written before Flush, so a command that fails half-way prints
// no half document.
type Formatter interface {
	OpenObject(name string)
	OpenArray(name string)
	Close()

	String(name, value string)
	Int(name string, value int64)
	Uint(name string, value uint64)
	Float(name string, value float64) // with 17 digits, as C++ streams write all of a number
	Bool(name string, value bool)

	// Flush writes the document and ends its line.
	Flush(w io.Writer) error
}

// New returns the formatter for the values of --format and --pretty-format.
// It is nil for the plain format, which every command prints in its own way.
func New(format string, pretty bool) (Formatter, error) {
	switch format {
	case "json":
		return &jsonFormatter{pretty: pretty}, nil
	case "xml":
		return &xmlFormatter{pretty: pretty}, nil
	}
	if pretty {
		return nil, ErrPretty
	}
	return nil, nil
}
