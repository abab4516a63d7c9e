package ceph

import (
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// Monitors gives the monitors' addresses as the kernel takes them, "ip:port"
// with an IPv6 address in brackets: those of messenger version 2 or of
// version 1, from the configuration's mon_host.
func (c *Cluster) Monitors(v2 bool) ([]string, error) {
	monHost := c.Config("mon_host")
	list, err := monitors(monHost, v2)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		version := "1 (port 6789)"
		if v2 {
			version = "2 (port 3300)"
		}
		return nil, errno.Errorf(syscall.ENOENT, "no monitor with an address of messenger version %s in mon_host %q", version, monHost)
	}
	return list, nil
}

// monitors reads a mon_host: monitors separated by commas, semicolons or
// spaces, each an address or a name, with a port or without, with "v1:" or
// "v2:" before it or without, with "/nonce" after it or without; several
// addresses of one monitor stand in brackets. Where a version is not said, a
// port of 3300 means 2, another 1, and none both.
func monitors(monHost string, v2 bool) ([]string, error) {
	var list []string
	for _, word := range splitMonHost(monHost) {
		version := 0
		if rest, ok := strings.CutPrefix(word, "v1:"); ok {
			version, word = 1, rest
		} else if rest, ok := strings.CutPrefix(word, "v2:"); ok {
			version, word = 2, rest
		}
		word, _, _ = strings.Cut(word, "/")
		host, port, err := net.SplitHostPort(word)
		if err != nil {
			host, port = strings.Trim(word, "[]"), ""
		}
		switch {
		case version == 0 && port == "3300":
			version = 2
		case version == 0 && port != "":
			version = 1
		}
		if version == 1 && v2 || version == 2 && !v2 {
			continue
		}
		if port == "" {
			port = "6789"
			if v2 {
				port = "3300"
			}
		}
		addresses := []string{host}
		if _, err := netip.ParseAddr(host); err != nil {
			if addresses, err = net.LookupHost(host); err != nil {
				return nil, errno.Errorf(syscall.EINVAL, "monitor %q: %v", host, err)
			}
		}
		for _, a := range addresses {
			list = append(list, net.JoinHostPort(a, port))
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
