package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
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

// A setting is a PATH that a configuration file gives to all services.
type setting struct {
	path string // as it is written there, specifiers and all
	file string
}

// managerPaths returns the PATH that holds without the installer's own file,
// and the one that is read after it and beats it; either may be empty.
//
// system.conf comes first, then the drop-ins of all folders by name, a name
// in a folder of higher priority hiding the same name in the others. The
// assignments of DefaultEnvironment= add up, an empty one forgets them.
func managerPaths(t *tree) (base, after setting, err error) {
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
		names, err := t.list(path.Join(dir, "system.conf.d"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return base, after, named(dir, err)
		}
		for _, name := range names {
			if path.Ext(name) == ".conf" && dropIns[name] == "" {
				dropIns[name] = path.Join(dir, "system.conf.d", name)
			}
		}
	}
	ours := path.Base(managerFile)
	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		if name != ours {
			files = append(files, dropIns[name])
		}
	}
	for _, name := range files {
		data, err := t.read(name)
		if err != nil {
			continue // a link to /dev/null or to nowhere: systemd reads nothing there either
		}
		value, set := lastPath(string(data), base.path)
		if !set {
			continue
		}
		base = setting{value, name}
		if path.Base(name) > ours && path.Base(name) != "system.conf" {
			after = base
		}
	}
	return base, after, nil
}

// lastPath reads one configuration file after others said path. It says
// whether this one has a say.
func lastPath(text, before string) (value string, set bool) {
	value = before
	section := ""
	for _, line := range logicalLines(text) {
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, val, ok := strings.Cut(line, "=")
		if section != "[Manager]" || !ok || strings.TrimSpace(key) != "DefaultEnvironment" {
			continue
		}
		if val = strings.TrimSpace(val); val == "" {
			value, set = "", true
		}
		for _, word := range splitWords(val) {
			if p, ok := strings.CutPrefix(word, "PATH="); ok {
				value, set = p, true
			}
		}
	}
	return value, set
}

// logicalLines returns the lines of a systemd file without comments, those
// that end in a backslash joined with the next (systemd.syntax(7)).
func logicalLines(text string) []string {
	var lines []string
	joined := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue // also in the middle of a joined line
		}
		if rest, more := strings.CutSuffix(line, `\`); more {
			joined += rest + " "
			continue
		}
		if line = strings.TrimSpace(joined + line); line != "" {
			lines = append(lines, line)
		}
		joined = ""
	}
	if joined = strings.TrimSpace(joined); joined != "" {
		lines = append(lines, joined)
	}
	return lines
}

// splitWords splits a value at blanks, quotes and backslashes read as
// systemd.syntax(7) has it. Escapes stand for the character after the
// backslash: no PATH needs \n or \x20.
func splitWords(s string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	started, escaped := false, false
	for _, c := range s {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\':
			started, escaped = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			started, quote = true, c
		case quote == 0 && (c == ' ' || c == '\t'):
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		default:
			word.WriteRune(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

// quoted escapes a value for double quotes in a systemd file.
func quoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
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
