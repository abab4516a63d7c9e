package output

import (
	"fmt"
	"strconv"
)

// Size prints a number of bytes with a binary unit: whole multiples without
// decimals, everything else with as many decimals (two at most) as fit in
// seven characters, the unit included.
func Size(bytes uint64) string {
	return scaled(bytes, 1024, " B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB")
}

// Count prints a number with a decimal unit, by the rules of Size.
func Count(n uint64) string { return scaled(n, 1000, "", "k", "M", "G", "T", "P", "E") }

func scaled(value, step uint64, units ...string) string {
	n, i, mult := value, 0, uint64(1)
	for n >= step && i < len(units)-1 {
		n /= step
		mult *= step
		i++
	}
	if value%mult == 0 {
		return strconv.FormatUint(n, 10) + units[i]
	}
	var s string
	for decimals := 2; decimals >= 0; decimals-- {
		s = fmt.Sprintf("%.*f%s", decimals, float64(value)/float64(mult), units[i])
		if len(s) <= 7 {
			break
		}
	}
	return s
}
