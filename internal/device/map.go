package device

import "github.com/opt-rbd/opt-rbd/internal/args"

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
