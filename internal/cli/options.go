package cli

import "github.com/opt-rbd/opt-rbd/internal/args"

// The options and operands that many commands have.
var (
	poolOption      = args.Option{Name: "pool", Short: "p", Arg: "arg", Help: "pool name"}
	namespaceOption = args.Option{Name: "namespace", Arg: "arg", Help: "namespace name"}
	imageOption     = args.Option{Name: "image", Arg: "arg", Help: "image name"}
	snapOption      = args.Option{Name: "snap", Arg: "arg", Help: "snapshot name"}
	imageIDOption   = args.Option{Name: "image-id", Arg: "arg", Help: "image id"}
	noProgress      = args.Option{Name: "no-progress", Help: "disable progress output"}
	formatOption    = args.Option{
		Name: "format", Arg: "arg",
		Help:  "output format (plain, json, or xml) [default: plain]",
		Check: oneOf("plain", "json", "xml"),
	}
	prettyOption = args.Option{Name: "pretty-format", Help: "pretty formatting (json and xml)"}

	poolOptions  = []args.Option{poolOption, namespaceOption}
	imageOptions = []args.Option{poolOption, namespaceOption, imageOption}

	sourcePoolOption      = args.Option{Name: "pool", Short: "p", Arg: "arg", Help: "source pool name"}
	sourceNamespaceOption = args.Option{Name: "namespace", Arg: "arg", Help: "source namespace name"}
	sourceImageOption     = args.Option{Name: "image", Arg: "arg", Help: "source image name"}
	sourceSnapOption      = args.Option{Name: "snap", Arg: "arg", Help: "source snapshot name"}
	destPoolOption        = args.Option{Name: "dest-pool", Arg: "arg", Help: "destination pool name"}
	destNamespaceOption   = args.Option{Name: "dest-namespace", Arg: "arg", Help: "destination namespace name"}
	destOption            = args.Option{Name: "dest", Arg: "arg", Help: "destination image name"}
	sparseSizeOption      = args.Option{Name: "sparse-size", Arg: "arg", Help: "sparse size in B/K/M [default: 4K]", Check: isA(bytes)}

	poolNameOperand = args.Operand{Name: "pool-name", Help: "pool name"}
	poolSpec        = args.Operand{Name: "pool-spec", Help: "pool specification\n(example: <pool-name>[/<namespace>]"}
	imageSpec       = args.Operand{Name: "image-spec", Help: "image specification\n(example: [<pool-name>/[<namespace>/]]<image-name>)"}
	snapSpec        = args.Operand{Name: "snap-spec", Help: "snapshot specification\n(example: [<pool-name>/[<namespace>/]]<image-name>@<snap-name>)"}
	imageOrSnapSpec = args.Operand{
		Name: "image-or-snap-spec",
		Help: "image or snapshot specification\n(example: [<pool-name>/[<namespace>/]]<image-name>[@<snap-name>])",
	}
	sourceSpec = args.Operand{
		Name: "source-image-or-snap-spec",
		Help: "source image or snapshot specification\n(example: [<pool-name>/[<namespace>/]]<image-name>[@<snap-name>])",
	}
	destSpec = args.Operand{
		Name: "dest-image-spec",
		Help: "destination image specification\n(example: [<pool-name>/[<namespace>/]]<image-name>)",
	}
)

// oneOf is a check for one of some words.
func oneOf(words ...string) func(string) error {
	return func(value string) error {
		for _, w := range words {
			if value == w {
				return nil
			}
		}
		return args.ErrArgument
	}
}
