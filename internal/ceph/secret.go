package ceph

import (
	"encoding/base64"
	"encoding/binary"
	"os"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/conf"
	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// ErrKey says that what was given as a key is none. The key is not in the
// text, nor does librados get to see it: it would print it.
var ErrKey = &errno.Error{Code: syscall.EINVAL, Line: "the key is not a Ceph key (base64, as printed by \"ceph auth get-key\")"}

// Secret is the client's key in base64, for the kernel, from where librados
// takes its own: the option key, the file of keyfile, the first file of
// keyring that can be read. It is empty where cephx is switched off.
func (c *Cluster) Secret() (string, error) {
	if c.err != nil {
		return "", c.err
	}
	if c.Config("auth_client_required") == "none" {
		return "", nil
	}
	return conf.Secret(c.Config("key"), c.Config("keyfile"), c.Config("keyring"), c.name)
}

// checkKey looks at the key that was given by option or by keyfile.
func (c *Cluster) checkKey() error {
	key := c.Config("key")
	if file := c.Config("keyfile"); key == "" && file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil // librados has its own view and words
		}
		key = string(data)
	}
	if key != "" && !validKey(key) {
		return ErrKey
	}
	return nil
}

// validKey says whether text is a key in base64: 16 bits of type, a time of 64
// bits, 16 bits of length and that many bytes, little endian (CryptoKey in
// Ceph's documentation of cephx).
func validKey(text string) bool {
	raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))
	if err != nil || len(raw) < 12 {
		return false
	}
	return len(raw) >= 12+int(binary.LittleEndian.Uint16(raw[10:]))
}
