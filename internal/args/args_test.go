package args

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var list = &Command{
	Path:     []string{"list"},
	Aliases:  [][]string{{"ls"}},
	Operands: []Operand{{Name: "pool-spec"}},
	Options: []Option{
		{Name: "long", Short: "l"},
		{Name: "pool", Short: "p", Arg: "arg"},
		{Name: "format", Arg: "arg", Check: func(v string) error {
			if v != "plain" && v != "json" {
				return ErrArgument
			}
			return nil
		}},
	},
}

var purge = &Command{Path: []string{"trash", "purge"}, Operands: []Operand{{Name: "pool-spec"}}}

var limit = &Command{
	Path:     []string{"snap", "limit", "set"},
	Operands: []Operand{{Name: "image-spec"}},
	Options:  []Option{{Name: "limit", Arg: "arg", Check: func(v string) error { return ErrValue }}},
}

var schedule = &Command{Path: []string{"trash", "purge", "schedule", "list"}}

var features = &Command{
	Path:     []string{"feature", "enable"},
	Operands: []Operand{{Name: "image-spec"}, {Name: "features", Repeat: true}},
	Options:  []Option{{Name: "image", Arg: "arg", Repeat: true}},
}

var all = []*Command{list, purge, limit, schedule, features}

// Each answer was given by rbd 16.2.15 to the same line.
func TestReadArranged(t *testing.T) {
	for _, c := range []struct{ argv, want []string }{
		{[]string{"ls"}, []string{"list", "--"}},
		{[]string{"ls", "-prbd"}, []string{"list", "--pool=rbd", "--"}},
		{[]string{"ls", "-lprbd"}, []string{"list", "--long=true", "--pool=rbd", "--"}},
		{[]string{"ls", "-p=rbd"}, []string{"list", "--pool==rbd", "--"}},
		{[]string{"ls", "-p", "--long"}, []string{"list", "--pool=--long", "--"}},
		{[]string{"ls", "-p", "--", "x"}, []string{"list", "--pool=--", "--", "x"}},
		{[]string{"ls", "--pool", ""}, []string{"list", "--pool=", "--"}},
		{[]string{"-p", "--help", "ls"}, []string{"list", "--pool=--help", "--"}},
		{[]string{"-l", "ls", "x"}, []string{"list", "--long=true", "--", "x"}},
		{[]string{"ls", "--", "--help"}, []string{"list", "--", "--help"}},
		{[]string{"--", "ls", "--bogus"}, []string{"list", "--", "--bogus"}},
		{[]string{"ls", "-"}, []string{"list", "--", "-"}},
		{[]string{"trash", "purge", "schedule"}, []string{"trash purge", "--", "schedule"}},
		{[]string{"trash", "purge", "schedule", "list"}, []string{"trash purge schedule list", "--"}},
		{[]string{"feature", "enable", "i", "a", "b", "--image", "x", "--image=y"},
			[]string{"feature enable", "--image=x", "--image=y", "--", "i", "a", "b"}},
	} {
		line, err := Read(all, c.argv)
		if err != nil {
			t.Errorf("%q: %v", c.argv, err)
			continue
		}
		if diff := cmp.Diff(c.want, line.Arranged()); diff != "" {
			t.Errorf("%q: %s", c.argv, diff)
		}
	}
}

// Timeout belongs to every command, unless it has one of its own.
func TestReadTimeout(t *testing.T) {
	own := &Command{Path: []string{"nbd", "map"}, Options: []Option{{Name: "timeout", Arg: "arg"}}}
	commands := append([]*Command{own}, all...)
	for _, argv := range [][]string{{"--timeout", "5", "ls", "x"}, {"ls", "--timeout=5", "x"}, {"ls", "x", "--timeout", "5"}} {
		line, err := Read(commands, argv)
		if err != nil || len(line.Options) != 1 || line.Options[0].Option != &Timeout || line.Options[0].Value != "5" || line.Operand(0) != "x" {
			t.Errorf("%q: %+v, %v", argv, line, err)
		}
	}
	line, err := Read(commands, []string{"nbd", "map", "--timeout", "x"})
	if err != nil || line.Options[0].Option != &own.Options[0] {
		t.Errorf("nbd map: %+v, %v", line, err)
	}
	for _, value := range []string{"-1", "x", "1.5", "99999999999"} {
		if _, err := Read(commands, []string{"ls", "--timeout", value}); err == nil || err.Error() != "the argument for option '--timeout' is invalid" {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestReadMistakes(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"ls", "--bogus"}, "unrecognised option '--bogus'"},
		{[]string{"ls", "--bogus=3"}, "unrecognised option '--bogus=3'"},
		{[]string{"ls", "-l=3"}, "unrecognised option '-l=3'"},
		{[]string{"ls", "--po", "a"}, "unrecognised option '--po'"},
		{[]string{"ls", "a", "b", "c"}, "too many arguments"},
		{[]string{"ls", "-p"}, "the required argument for option '--pool' is missing"},
		{[]string{"ls", "-p", "-l"}, "the required argument for option '--pool' is missing"},
		{[]string{"ls", "--pool="}, "the argument for option '--pool' should follow immediately after the equal sign"},
		{[]string{"ls", "--pool", "--long="}, "the argument for option '--pool' should follow immediately after the equal sign"},
		{[]string{"ls", "--long=3"}, "option '--long' does not take any arguments"},
		{[]string{"ls", "-p", "a", "-p", "b"}, "option '--pool' cannot be specified more than once"},
		{[]string{"ls", "-l", "-l"}, "option '--long' cannot be specified more than once"},
		{[]string{"ls", "--format", "yaml"}, "the argument for option '--format' is invalid"},
		{[]string{"snap", "limit", "set", "i", "--limit", "abc"}, "the argument ('abc') for option '--limit' is invalid"},
		{[]string{"-", "ls"}, "failed to parse command"},
		{[]string{"foo"}, "unknown option 'foo'"},
		{[]string{"", "ls"}, "unknown option 'ls'"},
		{[]string{"help", "foo"}, "unknown option 'foo'"},
		{[]string{"trash"}, "unknown option 'trash'"},
	} {
		_, err := Read(all, c.argv)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: got %v, want %s", c.argv, err, c.want)
		}
		var syntax *SyntaxError
		var unknown *UnknownCommandError
		if !errors.As(err, &syntax) && !errors.As(err, &unknown) {
			t.Errorf("%q: an error of type %T", c.argv, err)
		}
	}
}

func TestReadHelp(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want *Command
		name []string
	}{
		{nil, nil, nil},
		{[]string{"--bogus", "ls"}, nil, nil},
		{[]string{"ls", "--help"}, nil, nil},
		{[]string{"ls", "-h"}, nil, nil},
		{[]string{"help"}, nil, nil},
		{[]string{"help", "ls", "x"}, list, []string{"ls"}},
		{[]string{"help", "list", "--bogus"}, list, []string{"list"}},
	} {
		line, err := Read(all, c.argv)
		if err != nil || !line.Help || line.Command != c.want {
			t.Errorf("%q: %+v, %v", c.argv, line, err)
			continue
		}
		if diff := cmp.Diff(c.name, line.Name); diff != "" {
			t.Errorf("%q: %s", c.argv, diff)
		}
	}
}

func TestEnviron(t *testing.T) {
	for _, c := range []struct {
		env        string
		argv, want []string
	}{
		{"", []string{"ls", "--"}, []string{"ls", "--"}},
		{"--id  x", []string{"ls"}, []string{"--id", "x", "ls"}},
		{"-- rbd", []string{"ls", "-l"}, []string{"ls", "-l", "--", "rbd"}},
		{"-l", []string{"ls", "--", "x"}, []string{"-l", "ls", "--", "x"}},
		{"a", []string{"ls", "--"}, []string{"a", "ls"}},
	} {
		if diff := cmp.Diff(c.want, Environ(c.argv, c.env)); diff != "" {
			t.Errorf("CEPH_ARGS=%q %q: %s", c.env, c.argv, diff)
		}
	}
}

func TestSplit(t *testing.T) {
	argv := []string{"--id", "x", "map", "-m=a,b", "--mon-host", "c", "i", "--pool", "p", "--key=", "-k", "--", "q"}
	ceph, rest := Split(argv)
	if diff := cmp.Diff([]string{"--id", "x", "-m=a,b", "--mon-host", "c", "--key=", "-k", "--"}, ceph); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"map", "i", "--pool", "p", "q"}, rest); diff != "" {
		t.Error(diff)
	}
	if _, rest := Split([]string{"ls", "--", "--id", "x"}); len(rest) != 4 {
		t.Errorf("options after -- were taken: %q", rest)
	}
	if ceph, _ := Split([]string{"ls", "-m"}); len(ceph) != 1 {
		t.Errorf("an option without its value: %q", ceph)
	}
}

func TestSecrets(t *testing.T) {
	argv := []string{"map", "--key=abc", "--keyring", "--key", "--key", "def", "--key"}
	want := []Secret{{1, 6}, {4, 0}, {5, 0}}
	if diff := cmp.Diff(want, Secrets(argv)); diff != "" {
		t.Error(diff)
	}
}
