package launch

import "strings"

// dropped are variables that would load code or tables of the host, built against other libraries, into programs of
// the payload. Everything else of the environment stays, LD_DEBUG and the like too.
var dropped = []string{
	"LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", // ld.so(8): libraries
	"GCONV_PATH", "LOCPATH", // glibc: character set converters, compiled locales
	"OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", // openssl-env(7): settings, which may name modules
}

// opensslConf keeps OpenSSL from reading the host's openssl.cnf: one made for another release can name sections and
// modules that this one refuses, and then no connection is made. An empty file means the defaults.
const opensslConf = "OPENSSL_CONF=/dev/null"

// Environ is the environment that a program of the payload gets in place of this one.
func Environ(environ []string) []string {
	kept := make([]string, 0, len(environ)+1)
next:
	for _, v := range environ {
		for _, name := range dropped {
			if rest, ok := strings.CutPrefix(v, name); ok && strings.HasPrefix(rest, "=") {
				continue next
			}
		}
		kept = append(kept, v)
	}
	return append(kept, opensslConf)
}
