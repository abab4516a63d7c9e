package output

import (
	"fmt"
	"strconv"
)

// Size prints a number of bytes with a binary unit: whole multiples without
// decimals, everything else with as many decimals (two at most) as fit in
// seven characters, the unit included.
func Size(bytes uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	n, i, mult := bytes, 0, uint64(1)
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		mult *= 1024
		i++
	}
	if bytes%mult == 0 {
		return strconv.FormatUint(n, 10) + " " + units[i]
	}
	var s string
	for decimals := 2; decimals >= 0; decimals-- {
		s = fmt.Sprintf("%.*f %s", decimals, float64(bytes)/float64(mult), units[i])
		if len(s) <= 7 {
			break
		}
	}
	return s
}
