// Package spec reads specs of images and snapshots, pool/namespace/image@snap,
// alone and together with the options that say the same.
package spec

import (
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// Spec names a pool, and in it an image, a snapshot or another thing. Empty
// parts were not given.
type Spec struct {
	Pool, Namespace, Image, Snap string
}

// String is the spec as rbd prints it: [POOL/[NAMESPACE/]]IMAGE[@SNAP].
func (s Spec) String() string {
	var b strings.Builder
	for _, part := range []string{s.Pool, s.Namespace} {
		if part != "" {
			b.WriteString(part + "/")
		}
	}
	b.WriteString(s.Image)
	if s.Snap != "" {
		b.WriteString("@" + s.Snap)
	}
	return b.String()
}

// Names says how strict the names in a spec are. What exists has to stay
// reachable, so only new things get the strict rules.
type Names int

const (
	Any     Names = iota // the pool ends at the first "/", the snap begins after the first "@"
	NewSnap              // and no "/" or "@" in the name of the snap
	New                  // and none in any name
)

// Parse takes a spec apart. The error is EINVAL.
func Parse(text string, names Names) (Spec, error) {
	// Not by regular expressions: those cost the static launcher more at every start than this does.
	if pool, rest, ok := strings.Cut(text, "/"); ok && pool != "" && (names != New || !strings.Contains(pool, "@")) {
		if namespace, rest, ok := strings.Cut(rest, "/"); ok && namespace != "" && !strings.Contains(namespace, "@") {
			if image, snap, ok := cutSnap(rest, names); ok {
				return Spec{pool, namespace, image, snap}, nil
			}
		}
		if image, snap, ok := cutSnap(rest, names); ok {
			return Spec{Pool: pool, Image: image, Snap: snap}, nil
		}
	}
	if image, snap, ok := cutSnap(text, names); ok {
		return Spec{Image: image, Snap: snap}, nil
	}
	return Spec{}, errno.Errorf(syscall.EINVAL, "invalid spec '%s'", text)
}

// cutSnap takes IMAGE[@SNAP] apart and says whether the names are allowed. A part is never empty.
func cutSnap(text string, names Names) (image, snap string, ok bool) {
	image, snap, given := strings.Cut(text, "@")
	switch {
	case image == "" || names == New && strings.Contains(image, "/"):
		return "", "", false
	case !given:
		return image, "", true
	case names == Any:
		return image, snap, snap != "" && !strings.Contains(snap, "\n")
	}
	return image, snap, snap != "" && !strings.ContainsAny(snap, "/@")
}

// Snap says whether a command is about a snapshot.
type Snap int

const (
	NoSnap Snap = iota
	MaySnap
	NeedSnap
)

// Form is what a command wants of a spec.
type Form struct {
	Snap     Snap
	Names    Names
	Kind     string // what is named, "image" where it is empty
	Dest     bool   // the second of two specs: errors say "destination"
	Optional bool   // the name itself may be missing
	Loose    bool   // Names are not for what is in one spec, only for what each option says
	Anywhere bool   // nor are there rules for the options for pool and namespace
}

// Read joins what the options say with an operand. The option for the image
// may itself be a whole spec, and where it is given the operand is not looked
// at: used is then false. A part that stands in the spec beats its own option.
func (f Form) Read(options Spec, operand string) (s Spec, used bool, err error) {
	s = options
	text := operand
	// Only images can be a whole spec inside their option.
	if options.Image != "" {
		text = ""
		if f.Kind == "" {
			text = options.Image
		}
	} else {
		used = true
	}
	if text != "" {
		names := f.Names
		if f.Loose {
			names = Any
		}
		parsed, err := Parse(text, names)
		if err != nil {
			return s, used, err
		}
		if parsed.Pool != "" {
			s.Pool = parsed.Pool
		}
		if parsed.Namespace != "" {
			s.Namespace = parsed.Namespace
		}
		s.Image = parsed.Image
		if parsed.Snap != "" {
			s.Snap = parsed.Snap
		}
	}
	return s, used, f.check(s)
}

func (f Form) check(s Spec) error {
	kind, dest := f.Kind, ""
	if kind == "" {
		kind = "image"
	}
	if f.Dest {
		dest = "destination "
	}
	invalid := func(format string, a ...any) error { return errno.Errorf(syscall.EINVAL, format, a...) }
	switch {
	case s.Image == "" && !f.Optional:
		return invalid("%s%s name was not specified", dest, kind)
	case f.Names == New && !f.Anywhere && strings.ContainsAny(s.Pool, "/@"):
		return invalid("invalid pool name '%s'", s.Pool)
	case !f.Anywhere && strings.ContainsAny(s.Namespace, "/@"):
		return invalid("invalid namespace name '%s'", s.Namespace)
	case f.Snap == NoSnap && s.Snap != "":
		return invalid("%ssnapshot name specified for a command that doesn't use it", dest)
	case f.Snap == NeedSnap && s.Snap == "":
		return invalid("%ssnapshot name was not specified", dest)
	case f.Names == NewSnap && strings.ContainsAny(s.Snap, "/@"):
		return invalid("invalid snap name '%s'", s.Snap)
	}
	return nil
}

// Pool joins the options for pool and namespace with an operand
// "pool[/namespace]", which is looked at only where the option for the pool
// was not given at all.
func Pool(options Spec, poolGiven bool, operand string, names Names) (s Spec, used bool, err error) {
	s = Spec{Pool: options.Pool, Namespace: options.Namespace}
	if !poolGiven && operand != "" {
		used = true
		s.Pool = operand
		if i := strings.LastIndexByte(operand, '/'); i >= 0 {
			s.Pool, s.Namespace = operand[:i], operand[i+1:]
		}
	}
	if names != Any && strings.ContainsAny(s.Pool, "/@") {
		return s, used, errno.Errorf(syscall.EINVAL, "invalid pool '%s'", s.Pool)
	}
	if strings.ContainsAny(s.Namespace, "/@") {
		return s, used, errno.Errorf(syscall.EINVAL, "invalid namespace '%s'", s.Namespace)
	}
	return s, used, nil
}
