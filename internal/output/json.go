package output

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const jsonIndent = "    "

type jsonFormatter struct {
	pretty bool
	buf    bytes.Buffer
	open   []jsonSection
}

type jsonSection struct {
	array bool
	size  int
}

func (f *jsonFormatter) OpenObject(name string) { f.section(name, false) }
func (f *jsonFormatter) OpenArray(name string)  { f.section(name, true) }

func (f *jsonFormatter) section(name string, array bool) {
	f.key(name)
	if array {
		f.buf.WriteByte('[')
	} else {
		f.buf.WriteByte('{')
	}
	f.open = append(f.open, jsonSection{array: array})
}

func (f *jsonFormatter) Close() {
	last := f.open[len(f.open)-1]
	f.open = f.open[:len(f.open)-1]
	// An empty section stays on its line, pretty or not.
	if last.size > 0 {
		f.newline(len(f.open))
	}
	if last.array {
		f.buf.WriteByte(']')
	} else {
		f.buf.WriteByte('}')
	}
}

func (f *jsonFormatter) String(name, value string) {
	f.key(name)
	f.buf.WriteByte('"')
	f.buf.WriteString(escapeJSON(value))
	f.buf.WriteByte('"')
}

func (f *jsonFormatter) Int(name string, value int64)   { f.raw(name, strconv.FormatInt(value, 10)) }
func (f *jsonFormatter) Uint(name string, value uint64) { f.raw(name, strconv.FormatUint(value, 10)) }
func (f *jsonFormatter) Float(name string, value float64) {
	f.raw(name, strconv.FormatFloat(value, 'g', 17, 64))
}
func (f *jsonFormatter) Bool(name string, value bool) { f.raw(name, strconv.FormatBool(value)) }

func (f *jsonFormatter) Flush(w io.Writer) error {
	f.buf.WriteByte('\n')
	_, err := f.buf.WriteTo(w)
	return err
}

func (f *jsonFormatter) raw(name, text string) {
	f.key(name)
	f.buf.WriteString(text)
}

// key starts the next member of the innermost section.
func (f *jsonFormatter) key(name string) {
	if len(f.open) == 0 {
		return
	}
	in := &f.open[len(f.open)-1]
	if in.size > 0 {
		f.buf.WriteByte(',')
	}
	in.size++
	f.newline(len(f.open))
	if in.array {
		return
	}
	// Names are not escaped: they are the commands' own words, and where
	// they are data (metadata keys) Ceph does not escape them either.
	f.buf.WriteString(`"` + name + `":`)
	if f.pretty {
		f.buf.WriteByte(' ')
	}
}

func (f *jsonFormatter) newline(depth int) {
	if f.pretty {
		f.buf.WriteByte('\n')
		f.buf.WriteString(strings.Repeat(jsonIndent, depth))
	}
}

// escapeJSON escapes byte by byte: names in a cluster need not be UTF-8, and
// what is not passes unchanged.
func escapeJSON(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
