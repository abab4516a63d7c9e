package cli

import (
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// What rbd 16.2.15 makes of --size; 1<<64-1 stands for a refusal.
func TestImageSize(t *testing.T) {
	const refused = 1<<64 - 1
	for text, want := range map[string]uint64{
		"0": 0, "1": 1 << 20, "1023": 1023 << 20, "010": 10 << 20, "+5": 5 << 20,
		"1B": 1, "1K": 1 << 10, "1KB": 1 << 10, "1Ki": 1 << 10, "5BB": 5,
		"1M": 1 << 20, "1G": 1 << 30, "1T": 1 << 40, "1P": 1 << 50, "1E": 1 << 60,
		"1G1":            1 << 50, // the digit at the end makes megabytes of it
		"17592186044416": 0,       // 2^44 megabytes are more than there are numbers
		"":               refused, "-1": refused, " 5": refused, "1 G": refused, "1.5G": refused,
		"1k": refused, "1m": refused, "5b": refused, "5i": refused, "1Z": refused, "G": refused,
		"1KiB": refused, "1Kib": refused, "1iB": refused, "1Bi": refused, "0x10": refused, "5-3": refused,
		"16E": refused, "17E": refused, "99999999999999999999": refused,
	} {
		got, err := imageSize(text)
		if err != nil {
			got = refused
			if !errors.Is(err, args.ErrArgument) {
				t.Errorf("%q: %v", text, err)
			}
		}
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// FuzzBytes has another way to the same number: that of numbers without bounds.
func FuzzBytes(f *testing.F) {
	for _, text := range []string{"0", "4K", "+5", "1Ki", "15E", "16E", "9223372036854775808", "5-3", "-1", "-0", "1Bi", "4KiB", ""} {
		f.Add(text)
	}
	form := regexp.MustCompile(`^(?s)([+-]?[0-9]+)(?:([BKMGTPE]).?)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := bytes(text)
		if err != nil && !errors.Is(err, args.ErrArgument) {
			t.Errorf("%q: %v", text, err)
		}
		want := new(big.Int)
		parts := form.FindStringSubmatch(text)
		ok := parts != nil && !strings.HasSuffix(text, "Bi")
		if ok {
			want.SetString(parts[1], 10)
			// What stands before the letter is a number of 63 bits in Ceph.
			ok = want.Sign() >= 0 && want.IsInt64()
			want.Lsh(want, uint(10*max(strings.Index("BKMGTPE", parts[2]), 0)))
			ok = ok && want.IsUint64()
		}
		if ok != (err == nil) || ok && want.Uint64() != got {
			t.Errorf("%q: %d, %v, want %d, %v", text, got, err, want, ok)
		}
	})
}

func TestUnsigned(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "+7": 7, "-1": 1<<64 - 1, "-2": noSnap, "18446744073709551615": 1<<64 - 1} {
		if got, err := unsigned(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "+", "-", "--1", "abc", "0x5", "1 ", "18446744073709551616"} {
		if n, err := unsigned(text); !errors.Is(err, args.ErrValue) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func TestOrderOf(t *testing.T) {
	for size, want := range map[uint64]uint64{1: 0, 3: 2, 4096: 12, 5000: 12, 6000: 13, 40 << 20: 25, 46 << 20: 26, 64 << 20: 26} {
		if got := orderOf(size); got != want {
			t.Errorf("%d: %d, want %d", size, got, want)
		}
	}
	if got := orderOf(0); got <= 25 {
		t.Errorf("0: %d", got)
	}
}

func TestFeatures(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, ",": 0, "layering": 1, "layering,,exclusive-lock,": 5, "fast-diff": 16, "non-primary": 1024} {
		if got, err := features(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"bogus", "layering,bogus", "Layering", "layering ", "dirty-cache"} {
		if set, err := features(text); !errors.Is(err, args.ErrArgument) {
			t.Errorf("%q: %d, %v", text, set, err)
		}
	}
}
