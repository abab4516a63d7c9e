package conf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// The ports that are meant where none is said, by version of the messenger.
const (
	portV1 = 6789
	portV2 = 3300
)

// Monitors reads a mon_host: monitors separated by commas, semicolons or
// spaces, each an address or a name, with a port or without, with "v1:" or
// "v2:" before it or without, with "/nonce" after it or without; several
// addresses of one monitor stand in brackets. Where the version is not said, a
// port of 3300 means 2, another one 1, and no port both.
//
// lookup finds the addresses of a name.
func Monitors(monHost string, lookup func(name string) ([]string, error)) ([]krbd.Monitor, error) {
	var list []krbd.Monitor
	for _, word := range splitMonHost(monHost) {
		v1, v2 := true, true
		if rest, ok := strings.CutPrefix(word, "v1:"); ok {
			v2, word = false, rest
		} else if rest, ok := strings.CutPrefix(word, "v2:"); ok {
			v1, word = false, rest
		}
		word, _, _ = strings.Cut(word, "/")
		addresses, port, err := addresses(word, lookup)
		if err != nil {
			return nil, fmt.Errorf("monitor %q: %w", word, err)
		}
		if v1 && v2 && port != 0 {
			v1, v2 = port != portV2, port == portV2
		}
		for _, address := range addresses {
			for _, try := range []struct {
				wanted bool
				port   uint16
				msgr2  bool
			}{{v2, portV2, true}, {v1, portV1, false}} {
				if !try.wanted {
					continue
				}
				if port != 0 {
					try.port = port
				}
				list = append(list, krbd.Monitor{Addr: netip.AddrPortFrom(address, try.port), Msgr2: try.msgr2})
			}
		}
	}
	return list, nil
}

// addresses reads an address or a name, with a port or without, which is then 0.
func addresses(word string, lookup func(string) ([]string, error)) ([]netip.Addr, uint16, error) {
	if both, err := netip.ParseAddrPort(word); err == nil {
		return []netip.Addr{both.Addr()}, both.Port(), nil
	}
	if address, err := netip.ParseAddr(strings.Trim(word, "[]")); err == nil {
		return []netip.Addr{address}, 0, nil
	}
	name, text, hasPort := strings.Cut(word, ":")
	var port uint64
	if hasPort {
		var err error
		if port, err = strconv.ParseUint(text, 10, 16); err != nil {
			return nil, 0, fmt.Errorf("no port: %q", text)
		}
	}
	found, err := lookup(name)
	if err != nil {
		return nil, 0, err
	}
	var list []netip.Addr
	for _, text := range found {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, address)
	}
	return list, uint16(port), nil
}

// splitMonHost cuts at separators, and takes the brackets off that hold the
// addresses of one monitor but not those of an IPv6 address.
func splitMonHost(monHost string) []string {
	var words []string
	for _, word := range strings.FieldsFunc(monHost, func(r rune) bool { return strings.ContainsRune(",; \t", r) }) {
		if strings.HasPrefix(word, "[v") {
			word = word[1:]
		}
		// A bracket too many closes a monitor: "v1:1.2.3.4:6789/0]", "v1:[::1]:6789/0]".
		if strings.Count(word, "]") > strings.Count(word, "[") {
			word = strings.TrimSuffix(word, "]")
		}
		if word != "" {
			words = append(words, word)
		}
	}
	return words
}
