package device

import (
	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// Map is "device map". The command line runs it by librbd, and Direct some of
// its lines without.
var Map = &args.Command{
	Path:     []string{"device", "map"},
	Aliases:  [][]string{{"map"}},
	Short:    "Map an image to a block device.",
	Operands: []args.Operand{{Name: "image-or-snap-spec", Help: "image or snapshot specification\n(example: [<pool-name>/[<namespace>/]]<image-name>[@<snap-name>])"}},
	Options: []args.Option{
		Type, poolName, namespaceName, imageName, snapName,
		{Name: "show-cookie", Help: "show device cookie"},
		{Name: "cookie", Arg: "arg", Help: "specify device cookie"},
		{Name: "read-only", Help: "map read-only"},
		{Name: "exclusive", Help: "disable automatic exclusive lock transitions"},
		{Name: "quiesce", Help: "use quiesce hooks"},
		{Name: "quiesce-hook", Arg: "arg", Help: "quiesce hook path"},
		Options,
	},
}

// MapOptions are those of a line of Map: every -o in its order, then the
// switches that stand for one. An error is of [krbd.MapOptions.Parse].
func MapOptions(line *args.Line) (options krbd.MapOptions, err error) {
	for _, set := range line.Options {
		if set.Option.Name == Options.Name {
			if err := options.Parse(set.Value); err != nil {
				return options, err
			}
		}
	}
	if _, given := line.Value("read-only"); given {
		options.SetReadOnly()
	}
	if _, given := line.Value("exclusive"); given {
		options.SetExclusive()
	}
	return options, nil
}
