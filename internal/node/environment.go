package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// defaultPath is systemd's own PATH for services where neither
// DefaultEnvironment nor the manager itself says another (systemd.exec(5),
// "Environment variables in spawned processes"). Of its two forms this is the
// longer: on a system with a merged /usr its last two folders add nothing.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Where systemd-system.conf(5) looks, highest priority first.
var configFolders = []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"}

// managerFile is what the installer puts among them.
const managerFile = "/etc/systemd/system.conf.d/50-opt-rbd.conf"

// A setting is what a configuration file has to do with the PATH of all
// services.
type setting struct {
	path string // as it is written there, specifiers and all; empty for systemd's own
	file string
	stop error // why systemd reads neither the rest of this file nor any after it
}

// beats says how a file keeps the installer's own from giving all services a
// folder, "" where it does not.
func (s setting) beats(dir string) string {
	ours := path.Base(managerFile)
	switch {
	case s.file == "" || inPath(cmp.Or(s.path, defaultPath), dir):
		return ""
	case s.stop != nil:
		return fmt.Sprintf("%s %v: systemd reads nothing after it, nor %s: mend it or move it away", s.file, s.stop, ours)
	case s.path == "":
		return fmt.Sprintf("%s takes PATH back after %s and beats it: set PATH with %s there", s.file, ours, dir)
	}
	return fmt.Sprintf("%s sets PATH after %s and beats it: add :%s there", s.file, ours, dir)
}

// managerPaths returns the PATH that holds without the installer's own file,
// and the one that is read after it and beats it; either may be empty. after
// may also be a file before ours at which systemd stops.
//
// The assignments of DefaultEnvironment= add up, an empty one forgets them.
func managerPaths(t *tree) (base, after setting, err error) {
	files, err := managerFiles(t)
	if err != nil {
		return base, after, err
	}
	for _, name := range files {
		late := strings.HasSuffix(path.Dir(name), ".d") && path.Base(name) > path.Base(managerFile)
		text, err := t.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link to nowhere hides the name
		}
		if errors.Is(err, fs.ErrPermission) {
			return base, after, named(name, err)
		}
		value, set := "", false
		if err == nil {
			value, set, err = lastPath(string(text), base.path)
		}
		if set {
			base = setting{path: value, file: name}
		}
		if set && late {
			after = base
		}
		if err != nil {
			if !late {
				after = setting{path: base.path, file: name, stop: err}
			}
			break
		}
	}
	return base, after, nil
}

// managerFiles returns the configuration files of systemd but for ours in the
// order in which it reads them: the first system.conf that there is, then the
// drop-ins of all folders by name, a name in a folder of higher priority hiding
// the same name in the others.
func managerFiles(t *tree) ([]string, error) {
	var files []string
	for _, dir := range configFolders {
		name := path.Join(dir, "system.conf")
		if _, err := t.stat(name); err == nil {
			files = append(files, name)
			break
		}
	}
	dropIns := map[string]string{}
	for _, dir := range configFolders {
		dir = path.Join(dir, "system.conf.d")
		names, err := t.list(dir)
		if errors.Is(err, fs.ErrPermission) {
			return nil, named(dir, err)
		}
		if err != nil {
			continue // systemd passes over what is no folder
		}
		for _, name := range names {
			if path.Ext(name) == ".conf" && name[0] != '.' && dropIns[name] == "" {
				dropIns[name] = path.Join(dir, name)
			}
		}
	}
	delete(dropIns, path.Base(managerFile))
	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		files = append(files, dropIns[name])
	}
	return files, nil
}

// What is blank to systemd, and what ends a line: also CR and NUL, and two
// different ones together are one end.
const blanks = " \t\n\r"

var lineEnds = strings.NewReplacer("\r\n", "\n", "\n\r", "\n", "\r", "\n", "\x00", "\n")

// lastPath reads one configuration file after others said path. It says
// whether this one has a say, and why systemd stops reading in it. What comes
// before that place holds.
func lastPath(text, before string) (value string, set bool, stop error) {
	value = before
	section := ""
	for _, line := range logicalLines(text) {
		if !utf8.ValidString(line) {
			return value, set, errors.New("is not UTF-8")
		}
		if line[0] == '[' {
			if section = line; !strings.HasSuffix(line, "]") {
				return value, set, fmt.Errorf("has the line %q, a section without its end", line)
			}
			continue
		}
		key, val, ok := strings.Cut(line, "=")
		if section != "[Manager]" || !ok || strings.Trim(key, blanks) != "DefaultEnvironment" {
			continue
		}
		if val = strings.Trim(val, blanks); val == "" {
			value, set = "", true
		}
		for _, word := range splitWords(val) {
			if p, ok := strings.CutPrefix(word, "PATH="); ok && utf8.ValidString(p) {
				value, set = p, true
			}
		}
	}
	return value, set, nil
}

// logicalLines returns the lines of a systemd file without comments, those
// that end in a backslash joined with the next (systemd.syntax(7)). Two
// backslashes at the end are none.
func logicalLines(text string) []string {
	var lines []string
	joined := ""
	for line := range strings.SplitSeq(lineEnds.Replace(text), "\n") {
		if first := strings.TrimLeft(line, blanks); first != "" && (first[0] == '#' || first[0] == ';') {
			continue // also in the middle of a joined line
		}
		line = joined + strings.TrimPrefix(line, "\ufeff")
		if slashes := len(line) - len(strings.TrimRight(line, `\`)); slashes%2 == 1 {
			joined = line[:len(line)-1] + " "
			continue
		}
		joined = ""
		if line = strings.Trim(line, blanks); line != "" {
			lines = append(lines, line)
		}
	}
	if joined = strings.Trim(joined, blanks); joined != "" {
		lines = append(lines, joined)
	}
	return lines
}

// splitWords splits a value at blanks, quotes and backslashes read as
// systemd.syntax(7) has it. From a word on that cannot be read so systemd
// takes nothing.
func splitWords(s string) []string {
	var words []string
	for s = strings.TrimLeft(s, blanks); s != ""; s = strings.TrimLeft(s, blanks) {
		word, rest, ok := firstWord(s)
		if !ok {
			break
		}
		words = append(words, word)
		s = rest
	}
	return words
}

func firstWord(s string) (word, rest string, ok bool) {
	var quote byte
	for s != "" {
		c := s[0]
		switch {
		case c == '\\':
			text, rest, ok := unescape(s)
			if !ok {
				return "", "", false
			}
			word += text
			s = rest
			continue
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			return word, s, true
		default:
			word += s[:1]
		}
		s = s[1:]
	}
	return word, "", quote == 0
}

// unescape reads what begins with a backslash: the escapes of C, and \s for a
// blank.
func unescape(s string) (text, rest string, ok bool) {
	if len(s) > 1 {
		if i := strings.IndexByte(`s'"`, s[1]); i >= 0 {
			return ` '"`[i : i+1], s[2:], true
		}
	}
	c, wide, rest, err := strconv.UnquoteChar(s, 0)
	if err != nil || c == 0 {
		return "", "", false
	}
	if !wide {
		return string([]byte{byte(c)}), rest, true // a byte by its number
	}
	return string(c), rest, true
}

// quoted escapes a value for double quotes in a systemd file.
func quoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(s)
}

// literal escapes a value that is to be taken as it is, since % starts a
// specifier there.
func literal(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// inPath says whether a PATH names a folder.
func inPath(list, dir string) bool {
	return slices.ContainsFunc(strings.Split(list, ":"), func(d string) bool {
		return d != "" && path.Clean(d) == dir
	})
}

// withFolder returns a PATH that names dir, last where it did not.
func withFolder(list, dir string) string {
	if inPath(list, dir) {
		return list
	}
	return list + ":" + dir
}

// pathOf returns the last PATH of an environment.
func pathOf(env []string) (value string, set bool) {
	for _, assignment := range env {
		if p, ok := strings.CutPrefix(assignment, "PATH="); ok {
			value, set = p, true
		}
	}
	return value, set
}

// findIn looks a command up as execvp(3) and Go's exec.LookPath do, in the
// node's file system.
func findIn(t *tree, list, command string) (string, error) {
	for _, dir := range strings.Split(list, ":") {
		if !path.IsAbs(dir) {
			continue // the folder where a service stands is not ours to judge
		}
		name := path.Join(dir, command)
		info, err := t.stat(name)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return name, nil
		}
	}
	return "", fmt.Errorf("no %s in PATH=%s", command, list)
}
