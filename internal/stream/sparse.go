package stream

import "bytes"

var zeros [64 << 10]byte

// IsZero says whether all bytes of p are zero.
func IsZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if !bytes.Equal(p[:n], zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// Runs cuts p into runs of zeros and of other bytes, on a grid of grain bytes
// that begins at p's beginning, and calls do for each in turn with where it
// begins and ends. A grain of 0 makes all of p one run that is not zeros.
func Runs(p []byte, grain uint64, do func(begin, end int, zero bool)) {
	if grain == 0 {
		if len(p) > 0 {
			do(0, len(p), false)
		}
		return
	}
	grain = min(grain, uint64(len(p)))
	for begin := 0; begin < len(p); {
		end := min(begin+int(grain), len(p))
		zero := IsZero(p[begin:end])
		for end < len(p) {
			next := min(end+int(grain), len(p))
			if IsZero(p[end:next]) != zero {
				break
			}
			end = next
		}
		do(begin, end, zero)
		begin = end
	}
}
