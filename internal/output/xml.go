package output

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

type xmlFormatter struct {
	pretty bool
	buf    bytes.Buffer
	open   []string
}

func (f *xmlFormatter) OpenObject(name string) { f.section(name) }
func (f *xmlFormatter) OpenArray(name string)  { f.section(name) }

func (f *xmlFormatter) section(name string) {
	name = elementName(name)
	f.line("<" + name + ">")
	f.open = append(f.open, name)
}

func (f *xmlFormatter) Close() {
	name := f.open[len(f.open)-1]
	f.open = f.open[:len(f.open)-1]
	f.line("</" + name + ">")
}

func (f *xmlFormatter) String(name, value string) { f.element(name, escapeXML(value)) }
func (f *xmlFormatter) Int(name string, value int64) {
	f.element(name, strconv.FormatInt(value, 10))
}
func (f *xmlFormatter) Uint(name string, value uint64) {
	f.element(name, strconv.FormatUint(value, 10))
}
func (f *xmlFormatter) Float(name string, value float64) {
	f.element(name, strconv.FormatFloat(value, 'g', 17, 64))
}
func (f *xmlFormatter) Bool(name string, value bool) {
	f.element(name, strconv.FormatBool(value))
}

// Flush ends the document with a newline of its own; a pretty document, whose
// last line has ended already, thus ends in an empty line, as Ceph's does.
func (f *xmlFormatter) Flush(w io.Writer) error {
	f.buf.WriteByte('\n')
	_, err := f.buf.WriteTo(w)
	return err
}

// elementName is a name that may have spaces, as keys of JSON do, as an element.
func elementName(name string) string { return strings.ReplaceAll(name, " ", "_") }

func (f *xmlFormatter) element(name, text string) {
	name = elementName(name)
	f.line("<" + name + ">" + text + "</" + name + ">")
}

func (f *xmlFormatter) line(text string) {
	if f.pretty {
		f.buf.WriteString(strings.Repeat(" ", len(f.open)))
	}
	f.buf.WriteString(text)
	if f.pretty {
		f.buf.WriteByte('\n')
	}
}

// escapeXML escapes byte by byte like escapeJSON. Tab and newline stay.
func escapeXML(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '<':
			b.WriteString("&lt;")
		case c == '>':
			b.WriteString("&gt;")
		case c == '&':
			b.WriteString("&amp;")
		case c == '\'':
			b.WriteString("&apos;")
		case c == '"':
			b.WriteString("&quot;")
		case c == '\t' || c == '\n':
			b.WriteByte(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, "&#x%02x;", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
