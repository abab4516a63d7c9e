package args

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UnknownCommandError says that a line names no command. The tool ends with 1.
type UnknownCommandError struct{ Words []string }

func (e *UnknownCommandError) Error() string {
	// Empty words before the first one that is not are left out, as in rbd.
	var text string
	for _, w := range e.Words {
		if text != "" {
			text += " "
		}
		text += w
	}
	return "unknown option '" + text + "'"
}

// SyntaxError is a mistake in a line. The tool ends with 1.
type SyntaxError struct{ Text string }

func (e *SyntaxError) Error() string { return e.Text }

func syntax(format string, a ...any) error { return &SyntaxError{fmt.Sprintf(format, a...)} }

// Read reads a line, less the program's name and Ceph's own options.
//
// The words that make the command are found first, with nothing known but
// which options are switches of any command: every other option without "="
// takes the next word along, whatever it is, and -h or --help that is not such
// a word asks for help. Only then are the options read by the rules of that
// one command.
func Read(commands []*Command, argv []string) (*Line, error) {
	words, help := commandWords(commands, argv)
	switch {
	case help, len(words) == 0, len(words) == 1 && words[0] == "help":
		return &Line{Help: true}, nil
	case words[0] == "help":
		c, name := find(commands, words[1:])
		if c == nil {
			return nil, &UnknownCommandError{words[1:]}
		}
		return &Line{Command: c, Name: name, Help: true}, nil
	}
	c, name := find(commands, words)
	if c == nil {
		return nil, &UnknownCommandError{words}
	}
	p := parser{command: c, name: name}
	if err := p.parse(argv); err != nil {
		return nil, err
	}
	return p.line()
}

// commandWords gives the words of argv that are neither options nor, as far as
// can be told without knowing the command, values of options.
func commandWords(commands []*Command, argv []string) (words []string, help bool) {
	for i := 0; i < len(argv); i++ {
		arg := argv[i]
		switch {
		case arg == "-h" || arg == "--help":
			return nil, true
		case arg == "--":
			return append(words, argv[i+1:]...), false
		case strings.HasPrefix(arg, "-"):
			if len(arg) >= 2 && !strings.Contains(arg, "=") && !isSwitch(commands, arg) {
				i++
			}
		default:
			words = append(words, arg)
		}
	}
	return words, false
}

// isSwitch does not know deprecated switches, as little as rbd does.
func isSwitch(commands []*Command, arg string) bool {
	for _, c := range commands {
		for _, o := range c.Options {
			if o.Arg == "" && !o.Hidden && (arg == "--"+o.Name || o.Short != "" && strings.HasPrefix(arg, "-"+o.Short)) {
				return true
			}
		}
	}
	return false
}

// parser reads the options and operands of one command.
type parser struct {
	command *Command
	name    []string
	sets    []Set
	words   []string // the command's words and its operands
}

// token is one option of the line before its value was looked for.
type token struct {
	key      string // "--name" or "-n"
	value    string
	hasValue bool
	original string
}

func (p *parser) parse(argv []string) error {
	for len(argv) > 0 {
		arg := argv[0]
		argv = argv[1:]
		if arg == "--" {
			p.words = append(p.words, argv...)
			break
		}
		tokens, err := p.split(arg)
		if err != nil {
			return err
		}
		if tokens == nil {
			p.words = append(p.words, arg)
			continue
		}
		for _, t := range tokens {
			o := p.find(t.key)
			if o == nil {
				return syntax("unrecognised option '%s'", t.original)
			}
			if o.Arg == "" {
				if t.hasValue {
					return syntax("option '--%s' does not take any arguments", o.Name)
				}
				p.sets = append(p.sets, Set{o, "true"})
				continue
			}
			if !t.hasValue {
				// An option's short name is never taken for a value; a long one is.
				if len(argv) == 0 || len(argv[0]) == 2 && argv[0] != "--" && p.find(argv[0]) != nil {
					return syntax("the required argument for option '--%s' is missing", o.Name)
				}
				// A value that looks like an option is one, but has to be whole.
				if _, err := p.split(argv[0]); err != nil {
					return missingAfterEqual(o.Name)
				}
				t.value, argv = argv[0], argv[1:]
			}
			p.sets = append(p.sets, Set{o, t.value})
		}
	}
	return nil
}

// split takes a word apart that is an option, or several short ones in a row
// of which all but the last are switches. It gives nil for other words.
func (p *parser) split(arg string) ([]token, error) {
	if strings.HasPrefix(arg, "--") && len(arg) >= 3 {
		name, value, adjacent := strings.Cut(arg[2:], "=")
		if adjacent && value == "" {
			return nil, missingAfterEqual(name)
		}
		return []token{{"--" + name, value, adjacent, arg}}, nil
	}
	if len(arg) < 2 || arg[0] != '-' || arg[1] == '-' {
		return nil, nil
	}
	var tokens []token
	for rest := arg[1:]; ; rest = rest[1:] {
		t := token{key: "-" + rest[:1], value: rest[1:], hasValue: len(rest) > 1, original: arg}
		o := p.find(t.key)
		if o == nil || o.Arg != "" || !t.hasValue {
			return append(tokens, t), nil
		}
		t.value, t.hasValue = "", false
		tokens = append(tokens, t)
	}
}

func missingAfterEqual(option string) error {
	return syntax("the argument for option '--%s' should follow immediately after the equal sign", option)
}

func (p *parser) find(key string) *Option {
	for i := range p.command.Options {
		if o := &p.command.Options[i]; key == "--"+o.Name || o.Short != "" && key == "-"+o.Short {
			return o
		}
	}
	if key == "--"+Timeout.Name {
		return &Timeout
	}
	return nil
}

// line checks what was collected. The order of the checks is the order in
// which mistakes are reported: too many words before bad values.
func (p *parser) line() (*Line, error) {
	operands := p.command.Operands
	unbounded := len(operands) > 0 && operands[len(operands)-1].Repeat
	if !unbounded && len(p.words) > len(p.name)+len(operands) {
		return nil, syntax("too many arguments")
	}
	seen := make(map[string]bool)
	for _, s := range p.sets {
		o := s.Option
		if seen[o.Name] && !o.Repeat {
			return nil, syntax("option '--%s' cannot be specified more than once", o.Name)
		}
		seen[o.Name] = true
		if o.Check == nil {
			continue
		}
		if err := o.Check(s.Value); errors.Is(err, ErrValue) && s.Value != "" {
			return nil, syntax("the argument ('%s') for option '--%s' is invalid", s.Value, o.Name)
		} else if err != nil {
			return nil, syntax("the argument for option '--%s' is invalid", o.Name)
		}
	}
	// An option may have swallowed a word of the command, or let one through.
	if len(p.words) < len(p.name) || !slices.Equal(p.words[:len(p.name)], p.name) {
		return nil, syntax("failed to parse command")
	}
	return &Line{Command: p.command, Name: p.name, Options: p.sets, Operands: p.words[len(p.name):]}, nil
}
