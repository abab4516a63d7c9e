package krbd

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// Secret is a key of a Ceph user. It cannot be printed by accident: every verb
// of fmt, JSON and log/slog show "<redacted>".
type Secret struct{ base64 string }

const redacted = "<redacted>"

// NewSecret takes a key in the base64 form that keyring files have; space
// around it is dropped.
func NewSecret(base64 string) Secret { return Secret{strings.TrimSpace(base64)} }

// IsZero reports whether there is no key.
func (s Secret) IsZero() bool { return s.base64 == "" }

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// payload is what a kernel key of the type "ceph" holds.
func (s Secret) payload() ([]byte, error) { return base64.StdEncoding.DecodeString(s.base64) }
