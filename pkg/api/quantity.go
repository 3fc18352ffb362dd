package api

import "strconv"

// The suffixes of quantities. Each stands for a thousand, or 1024, times the one before.
var (
	decimals = [...]string{"n", "u", "m", "", "k", "M", "G"}
	binaries = [...]string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
)

// unit is the place of the suffix for one in decimals.
const unit = 3

// appendCPU appends nanocores as the canonical form of the quantity in resourceList.
func appendCPU(b []byte, nanocores uint64) []byte {
	return appendScaled(b, signed(nanocores), 1000, decimals[:])
}

// appendBytes appends an amount of memory as the canonical form of the quantity in resourceList.
func appendBytes(b []byte, bytes uint64) []byte {
	if bytes < 1024 { // so little is printed in decimal, and 1000 as 1k
		return appendScaled(b, int64(bytes), 1000, decimals[unit:])
	}
	return appendScaled(b, signed(bytes), 1024, binaries[:])
}

// appendScaled appends v with the greatest suffix that leaves it whole.
func appendScaled(b []byte, v, base int64, suffixes []string) []byte {
	if v == 0 {
		return append(b, '0')
	}
	i := 0
	for v%base == 0 {
		v /= base
		i++
	}
	b = strconv.AppendInt(b, v, 10)
	return append(b, suffixes[i]...)
}
