// Package share holds what makes rbd easier to type and to look up: the man
// page and what the shells need to complete its lines, each where those look
// below a prefix. The man page is made by cmd/manual.
package share

import "embed"

// Files are in folders as they go below PREFIX/share.
//
//go:embed bash-completion fish man all:zsh
var Files embed.FS
