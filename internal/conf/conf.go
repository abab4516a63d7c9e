// Package conf reads what tells a client of its cluster where librados is not
// there to read it: ceph.conf, keyrings, and addresses of monitors.
//
// It is no second librados: it knows the options of one client as they stand in
// one file, neither their defaults nor those that the monitors keep. See Ceph's
// "Configuring Ceph".
package conf

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// errSyntax says that a file is none that is understood here.
var errSyntax = errors.New("not a ceph.conf")

// Options are those that count for one client, by names with "_" between
// their words.
type Options map[string]string

// Parse reads the text of a ceph.conf for the client of the given name
// ("client.admin"): an option in its own section beats one in [client], and
// that one in [global]. What librados may refuse is refused here, such as lines
// of blanks and a last one without an end.
func Parse(text, client string) (Options, error) {
	// A backslash joins lines and quotes letters, by rules of its own in comments.
	if strings.ContainsFunc(text, func(r rune) bool { return (r < ' ' || r > '~' || r == '\\') && r != '\t' && r != '\n' }) {
		return nil, errSyntax
	}
	ranks := map[string]int{"global": 1, "client": 2, client: 3}
	options, rankOf := Options{}, map[string]int{}
	section := "" // what stands before the first is understood by some releases, and by others in part
	for line := range strings.Lines(text) {
		if line == "\n" {
			continue
		}
		line, ended := strings.CutSuffix(line, "\n")
		line = strings.TrimSpace(line)
		if line == "" || !ended {
			return nil, errSyntax
		}
		if isComment(line) {
			continue
		}
		if line[0] == '[' {
			name, rest, ok := strings.Cut(line[1:], "]")
			if rest = strings.TrimSpace(rest); !ok || rest != "" && !isComment(rest) || !isName(name) {
				return nil, errSyntax
			}
			section = name
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || section == "" || !isName(name) {
			return nil, errSyntax
		}
		if value, ok = cutComment(value); !ok {
			return nil, errSyntax
		}
		rank := ranks[section]
		if rank == 0 {
			continue
		}
		name = strings.Join(strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" \t", r) }), "_")
		if rank >= rankOf[name] {
			options[name], rankOf[name] = value, rank
		}
	}
	return options, nil
}

// isComment says whether a text that is not empty is a comment.
func isComment(text string) bool { return text[0] == '#' || text[0] == ';' }

// isName says whether a text is one that all releases take for the name of an
// option or of a section.
func isName(text string) bool {
	return strings.TrimSpace(text) != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-. \t", r)
	})
}

// cutComment takes a comment and quotation marks off a value. It is not ok
// where the value has what would have to be looked at more closely.
func cutComment(value string) (string, bool) {
	value = strings.TrimSpace(value)
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		inner, rest, ok := strings.Cut(value[1:], value[:1])
		rest = strings.TrimSpace(rest)
		return inner, ok && !strings.ContainsAny(inner, "#;") && (rest == "" || isComment(rest))
	}
	if i := strings.IndexAny(value, "#;"); i >= 0 {
		value = strings.TrimSpace(value[:i])
	}
	return value, !strings.ContainsAny(value, `"'`)
}

// Expand fills in the variables of a value that depend on nothing but the names
// of cluster and client ("client.admin"). It is not ok where there are others.
func Expand(value, cluster, client string) (expanded string, ok bool) {
	kind, id, _ := strings.Cut(client, ".")
	variables := map[string]string{"cluster": cluster, "name": client, "type": kind, "id": id}
	for {
		before, after, more := strings.Cut(value, "$")
		expanded += before
		if !more {
			return expanded, true
		}
		inner, braced := strings.CutPrefix(after, "{")
		rest := strings.TrimLeft(inner, "abcdefghijklmnopqrstuvwxyz_")
		of, known := variables[inner[:len(inner)-len(rest)]]
		if braced && known {
			rest, known = strings.CutPrefix(rest, "}")
		}
		if !known {
			return "", false
		}
		expanded += of
		value = rest
	}
}

// Secret is the key of an entity ("client.admin") in base64, from where librados
// takes it: the option key, the file of keyfile, the first file of keyring that
// can be read.
func Secret(key, keyfile, keyring, entity string) (string, error) {
	if key != "" {
		return strings.ReplaceAll(key, "\n", ""), nil
	}
	if keyfile != "" {
		text, err := os.ReadFile(keyfile)
		return strings.ReplaceAll(string(text), "\n", ""), err
	}
	for _, file := range strings.FieldsFunc(keyring, func(r rune) bool { return strings.ContainsRune(";,= \t", r) }) {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if key := keyOf(string(text), entity); key != "" {
			return key, nil
		}
		return "", errno.Errorf(syscall.ENOENT, "no key for %s in %s", entity, file)
	}
	return "", errno.Errorf(syscall.ENOENT, "no keyring found at %s", keyring)
}

// keyOf finds the key of an entity in the text of a keyring; ""
// where it has none.
func keyOf(keyring, entity string) string {
	var section, key string
	for line := range strings.Lines(keyring) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.TrimSpace(strings.TrimSuffix(line[1:], "]"))
			continue
		}
		option, value, ok := strings.Cut(line, "=")
		if ok && section == entity && strings.TrimSpace(option) == "key" {
			key = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return key
}
