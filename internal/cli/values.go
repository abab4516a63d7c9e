package cli

import (
	"math"
	"strconv"
	"strings"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
)

// bytes reads a number of bytes: B, K, M, G, T, P or E may follow, with one
// more letter behind it ("4K", "4KB", "4Ki"). These rules, with what they let
// through, are those of strict_iecstrtoll in Ceph.
func bytes(text string) (uint64, error) {
	digits, unit := text, ""
	if i := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789-+", r) }); i >= 0 {
		digits, unit = text[:i], text[i:]
	}
	shift := 0
	if unit != "" {
		i := strings.IndexByte("BKMGTPE", unit[0])
		if i > 0 && librbd.Release >= 20 { // "4KiB" is new there
			unit, _ = strings.CutSuffix(unit, "iB")
		}
		if i < 0 || len(unit) > 2 || unit == "Bi" || len(unit) == 2 && librbd.Release >= 20 && unit[1] != 'i' && unit[1] != 'B' {
			return 0, args.ErrArgument
		}
		shift = 10 * i
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || uint64(n) > math.MaxUint64>>shift {
		return 0, args.ErrArgument
	}
	return uint64(n) << shift, nil
}

// imageSize reads a number of bytes that are megabytes where no unit is said.
func imageSize(text string) (uint64, error) {
	n, err := bytes(text)
	if err == nil && text[len(text)-1] >= '0' && text[len(text)-1] <= '9' {
		n <<= 20
	}
	return n, err
}

// unsigned reads a plain number. A minus counts down from 2^64, as it does
// where C++ casts texts to numbers.
func unsigned(text string) (uint64, error) {
	digits, minus := strings.CutPrefix(text, "-")
	if !minus {
		digits = strings.TrimPrefix(text, "+")
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, args.ErrValue
	}
	if minus {
		n = -n
	}
	return n, nil
}

// unsigned32 is unsigned for numbers of 32 bits.
func unsigned32(text string) (uint64, error) {
	n, err := unsigned(text)
	if err == nil && n > math.MaxUint32 && -n > math.MaxUint32 {
		err = args.ErrValue
	}
	return uint64(uint32(n)), err
}

// between is a check for a plain number in a range.
func between(low, high uint64) func(string) error { return inRange(unsigned, low, high) }

// sizeBetween is a check for a number of bytes in a range.
func sizeBetween(low, high uint64) func(string) error { return inRange(bytes, low, high) }

// inRange makes such checks; their errors do not show the value.
func inRange(read func(string) (uint64, error), low, high uint64) func(string) error {
	return func(text string) error {
		if n, err := read(text); err != nil || n < low || n > high {
			return args.ErrArgument
		}
		return nil
	}
}

// isA makes a check of a reading function.
func isA(read func(string) (uint64, error)) func(string) error {
	return func(text string) error {
		_, err := read(text)
		return err
	}
}

// bit is a bit with its name.
type bit struct {
	value uint64
	name  string
}

// featureBits are the features of images that a user can see or ask for, in
// the order in which they are listed.
var featureBits = []bit{
	{rbd.FeatureLayering, rbd.FeatureNameLayering},
	{rbd.FeatureStripingV2, rbd.FeatureNameStripingV2},
	{rbd.FeatureExclusiveLock, rbd.FeatureNameExclusiveLock},
	{rbd.FeatureObjectMap, rbd.FeatureNameObjectMap},
	{rbd.FeatureFastDiff, rbd.FeatureNameFastDiff},
	{rbd.FeatureDeepFlatten, rbd.FeatureNameDeepFlatten},
	{rbd.FeatureJournaling, rbd.FeatureNameJournaling},
	{rbd.FeatureDataPool, rbd.FeatureNameDataPool},
	{rbd.FeatureOperations, rbd.FeatureNameOperations},
	{rbd.FeatureMigrating, rbd.FeatureNameMigrating},
	{librbd.FeatureNonPrimary, "non-primary"},
}

func init() {
	if librbd.Release >= 18 { // a client sets it, but it can be asked for
		featureBits = append(featureBits, bit{librbd.FeatureDirtyCache, "dirty-cache"})
	}
}

var operationBits = []bit{
	{librbd.OperationCloneParent, "clone-parent"},
	{librbd.OperationCloneChild, "clone-child"},
	{librbd.OperationGroup, "group"},
	{librbd.OperationSnapTrash, "snap-trash"},
}

var flagBits = []bit{
	{librbd.FlagObjectMapInvalid, "object map invalid"},
	{librbd.FlagFastDiffInvalid, "fast diff invalid"},
}

// namesOf lists the names of the bits that are set.
func namesOf(bits []bit, set uint64) (names []string) {
	for _, b := range bits {
		if set&b.value != 0 {
			names = append(names, b.name)
		}
	}
	return names
}

// features reads names of features, joined by commas. None at all is fine.
func features(text string) (set uint64, err error) {
next:
	for name := range strings.SplitSeq(text, ",") {
		if name == "" {
			continue
		}
		for _, b := range featureBits {
			if b.name == name {
				set |= b.value
				continue next
			}
		}
		return 0, args.ErrArgument
	}
	return set, nil
}
