package ceph

import (
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// Monitors gives the monitors' addresses that the configuration names in
// mon_host, for both versions of the messenger protocol.
func (c *Cluster) Monitors() ([]krbd.Monitor, error) { return monitors(c.Config("mon_host")) }

// The ports that are meant where none is said, by version of the messenger.
const (
	portV1 = "6789"
	portV2 = "3300"
)

// monitors reads a mon_host: monitors separated by commas, semicolons or
// spaces, each an address or a name, with a port or without, with "v1:" or
// "v2:" before it or without, with "/nonce" after it or without; several
// addresses of one monitor stand in brackets. Where the version is not said, a
// port of 3300 means 2, another one 1, and no port both.
func monitors(monHost string) ([]krbd.Monitor, error) {
	var list []krbd.Monitor
	for _, word := range splitMonHost(monHost) {
		v1, v2 := true, true
		if rest, ok := strings.CutPrefix(word, "v1:"); ok {
			v2, word = false, rest
		} else if rest, ok := strings.CutPrefix(word, "v2:"); ok {
			v1, word = false, rest
		}
		word, _, _ = strings.Cut(word, "/")
		host, port, err := net.SplitHostPort(word)
		if err != nil {
			host, port = strings.Trim(word, "[]"), ""
		}
		if v1 && v2 && port != "" {
			v1, v2 = port != portV2, port == portV2
		}
		addresses := []string{host}
		if _, err := netip.ParseAddr(host); err != nil {
			if addresses, err = net.LookupHost(host); err != nil {
				return nil, errno.Errorf(syscall.EINVAL, "monitor %q: %v", host, err)
			}
		}
		for _, address := range addresses {
			for _, try := range []struct {
				wanted bool
				port   string
				msgr2  bool
			}{{v2, portV2, true}, {v1, portV1, false}} {
				if !try.wanted {
					continue
				}
				if port != "" {
					try.port = port
				}
				addr, err := netip.ParseAddrPort(net.JoinHostPort(address, try.port))
				if err != nil {
					return nil, errno.Errorf(syscall.EINVAL, "monitor %q: %v", word, err)
				}
				list = append(list, krbd.Monitor{Addr: addr, Msgr2: try.msgr2})
			}
		}
	}
	return list, nil
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
