package krbd

import (
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// MapOptions are the options of a map, and UnmapOptions those of an unmap, as
// -o takes them. Each option stands under its key in the form that it is
// passed on in: "queue_depth" has "queue_depth=64", and "rw" has "rw" or "ro".
// The zero value holds none and can be added to.
type (
	MapOptions   struct{ options }
	UnmapOptions struct{ options }
)

type options map[string]string

// optionKind says what an option looks like.
type optionKind struct {
	key   string                      // options with the same key replace each other
	value func(string) (string, bool) // nil for a switch
}

// mapKinds is a function, as unmapKinds is, so that only a call that has
// options pays for the table.
func mapKinds() map[string]optionKind {
	kinds := map[string]optionKind{
		"fsid":              {value: uuidValue},
		"ip":                {value: addrValue},
		"crush_location":    {value: textValue},
		"read_from_replica": {value: oneOf("no", "balance", "localize")},
		"compression_hint":  {value: oneOf("none", "compressible", "incompressible")},
		"ms_mode":           {value: oneOf("legacy", "crc", "secure", "prefer-crc", "prefer-secure")},
		"rw":                {key: "rw"},
		"ro":                {key: "rw"},
		"udev":              {key: "udev"},
		"noudev":            {key: "udev"},
		"noshare":           {key: "share"},
	}
	for _, name := range []string{"mount_timeout", "osdkeepalive", "osd_idle_ttl", "osd_request_timeout", "queue_depth", "lock_timeout", "alloc_size"} {
		kinds[name] = optionKind{value: intValue}
	}
	for _, name := range []string{"share", "crc", "cephx_require_signatures", "tcp_nodelay", "cephx_sign_messages"} {
		kinds[name] = optionKind{key: name}
		kinds["no"+name] = optionKind{key: name}
	}
	for _, name := range []string{"lock_on_read", "exclusive", "notrim", "abort_on_full", "rxbounce"} {
		kinds[name] = optionKind{key: name}
	}
	return kinds
}

func unmapKinds() map[string]optionKind {
	return map[string]optionKind{
		"force":  {key: "force"},
		"udev":   {key: "udev"},
		"noudev": {key: "udev"},
	}
}

// Parse adds the options of one -o. Of options that exclude each other the
// last one stands. An error is an [*Error] with EINVAL.
func (o *MapOptions) Parse(text string) error { return o.parse("map", mapKinds(), text) }

// Parse adds the options of one -o. An error is an [*Error] with EINVAL.
func (o *UnmapOptions) Parse(text string) error { return o.parse("unmap", unmapKinds(), text) }

// SetReadOnly is --read-only, which beats any -o before it.
func (o *MapOptions) SetReadOnly() { o.set("rw", "ro") }

// SetExclusive is --exclusive, which beats any -o before it.
func (o *MapOptions) SetExclusive() { o.set("exclusive", "exclusive") }

// SetDefaults adds those of d whose key is not there yet: d is the cluster's
// rbd_default_map_options, and the command line beats it.
func (o *MapOptions) SetDefaults(d MapOptions) {
	for key, text := range d.options {
		if _, ok := o.options[key]; !ok {
			o.set(key, text)
		}
	}
}

// String is how the kernel gets the options: sorted by key, without those that
// are not for it. Plain rw is the default and is left out as well.
func (o options) String() string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if key != "udev" && o[key] != "rw" {
			list = append(list, o[key])
		}
	}
	return strings.Join(list, ",")
}

func (o options) noudev() bool { return o["udev"] == "noudev" }

// msgr2 reports whether the monitors are to be spoken to in the second version
// of the messenger protocol.
func (o MapOptions) msgr2() bool {
	mode := o.options["ms_mode"]
	return mode != "" && mode != "ms_mode=legacy"
}

func (o *options) set(key, text string) {
	if *o == nil {
		*o = options{}
	}
	(*o)[key] = text
}

func (o *options) parse(what string, kinds map[string]optionKind, text string) error {
	invalid := func(text string) error { return &Error{Text: text, Errno: syscall.EINVAL} }
	// Spaces part options as commas do; what follows = is dropped on a switch.
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, value, _ := strings.Cut(part, "=")
		kind, ok := kinds[name]
		switch {
		case !ok:
			return invalid(textOptionUnknown(what, name))
		case kind.value == nil:
			o.set(kind.key, name)
		case value == "":
			return invalid(textOptionValue(name))
		default:
			parsed, ok := kind.value(value)
			if !ok {
				return invalid(textOptionInvalid(name, value))
			}
			o.set(name, name+"="+parsed)
		}
	}
	return nil
}

func textValue(s string) (string, bool) { return s, true }

func oneOf(names ...string) func(string) (string, bool) {
	return func(s string) (string, bool) { return s, slices.Contains(names, s) }
}

// intValue takes what fits a C int and is not negative.
func intValue(s string) (string, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	return strconv.FormatInt(n, 10), err == nil && n >= 0
}

// uuidValue takes a UUID with all four dashes or none, in braces or not.
func uuidValue(s string) (string, bool) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if s, ok = strings.CutSuffix(inner, "}"); !ok {
			return "", false
		}
	}
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		s = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		return "", false
	}
	s = hex.EncodeToString(b)
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-"), true
}

// addrValue takes an address with or without a port, as Ceph writes them: in
// brackets or not, with or without the version of the protocol in front and a
// nonce behind. The kernel gets the address and the port, 0 meaning any.
func addrValue(s string) (string, bool) {
	for _, prefix := range []string{"v1:", "v2:", "any:"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			s = rest
			break
		}
	}
	s, nonce, found := strings.Cut(s, "/")
	if found && nonce != "" {
		if _, err := strconv.ParseUint(nonce, 10, 32); err != nil {
			return "", false
		}
	}
	host, port := s, "0"
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if host, port, ok = strings.Cut(inner, "]"); !ok {
			return "", false
		}
		if port, ok = strings.CutPrefix(port, ":"); !ok && port != "" {
			return "", false
		}
	} else if strings.Count(s, ":") == 1 {
		host, port, _ = strings.Cut(s, ":")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return "", false
	}
	if port == "" {
		port = "0"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", false
	}
	return netip.AddrPortFrom(addr, uint16(n)).String(), true
}
