package args

import "strings"

// CephValue are Ceph's own options that take a value and that callers of rbd
// use, short and long. Names are compared with "_" and "-" as equals.
var CephValue = []string{
	"-c", "--conf", "--cluster", "--id", "--user", "-n", "--name",
	"-m", "--mon_host", "-k", "--keyring", "-K", "--keyfile", "--key",
	"--setuser", "--setgroup", "--auth_supported",
}

// Environ puts the words of $CEPH_ARGS where Ceph puts them: its options
// before those of the line, its operands (after "--") before the line's.
func Environ(argv []string, cephArgs string) []string {
	env := strings.FieldsFunc(cephArgs, func(r rune) bool { return r == ' ' })
	if len(env) == 0 {
		return argv
	}
	options, operands := cutDashes(env)
	lineOptions, lineOperands := cutDashes(argv)
	options = append(options, lineOptions...)
	operands = append(operands, lineOperands...)
	if len(operands) > 0 {
		options = append(append(options, "--"), operands...)
	}
	return options
}

func cutDashes(argv []string) (before, after []string) {
	for i, arg := range argv {
		if arg == "--" {
			return argv[:i:i], argv[i+1 : len(argv) : len(argv)]
		}
	}
	return argv[:len(argv):len(argv)], nil
}

// Split takes the Ceph options that it knows out of a line, wherever they
// stand before a "--". It knows only the usual ones: any configuration key of
// Ceph is an option, too, and only librados knows those. A caller without
// librados hands the whole line on when Read then meets an unknown option.
func Split(argv []string) (ceph, rest []string) {
	for i := 0; i < len(argv); i++ {
		if argv[i] == "--" {
			return ceph, append(rest, argv[i:]...)
		}
		_, _, n := CephOption(argv[i:], CephValue...)
		if n == 0 {
			rest = append(rest, argv[i])
			continue
		}
		ceph = append(ceph, argv[i:min(i+n, len(argv))]...)
		i += n - 1
	}
	return ceph, rest
}

// CephOption reads one of the named value options at the start of argv by
// Ceph's rules: "--mon-host v", "--mon_host=v", "-m v", "-m=v". It gives the
// name from names, the value and how many words they took: 0 if argv starts
// with none of them, 1 more than argv has where the value is missing.
func CephOption(argv []string, names ...string) (name, value string, words int) {
	given, value, adjacent := strings.Cut(argv[0], "=")
	given = underscores(given)
	for _, name := range names {
		if given != underscores(name) {
			continue
		}
		if adjacent {
			return name, value, 1
		}
		if len(argv) < 2 {
			return name, "", 2
		}
		return name, argv[1], 2
	}
	return "", "", 0
}

func underscores(option string) string {
	if len(option) <= 2 {
		return option
	}
	return option[:2] + strings.ReplaceAll(option[2:], "-", "_")
}

// Secrets gives the parts of argv that are secret keys: the values of --key,
// as indexes into argv and offsets from which the rest of that word is secret.
func Secrets(argv []string) []Secret {
	var secrets []Secret
	for i, arg := range argv {
		name, _, adjacent := strings.Cut(arg, "=")
		switch {
		case underscores(name) != "--key":
		case adjacent:
			secrets = append(secrets, Secret{i, len(name) + 1})
		case i+1 < len(argv):
			secrets = append(secrets, Secret{i + 1, 0})
		}
	}
	return secrets
}

// Secret is where a key stands in an argv: argv[Index][From:].
type Secret struct{ Index, From int }
