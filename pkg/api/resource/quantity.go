package resource

import (
	"math/bits"
	"strconv"
)

// Suffixes of quantities. Each stands for 1000 (decimals) or 1024 (binaries) times the previous
// one.
var (
	decimals = [...]string{"n", "u", "m", "", "k", "M", "G"}
	binaries = [...]string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
)

// unit is the index of the empty suffix in decimals.
const unit = 3

// appendCPU appends nanocores in the canonical form of the quantity in resourceList.
func appendCPU(b []byte, nanocores uint64) []byte {
	return appendDecimal(b, signed(nanocores), decimals[:])
}

// appendBytes appends an amount of memory in the canonical form of the quantity in resourceList.
func appendBytes(b []byte, bytes uint64) []byte {
	v := signed(bytes)
	if v < 1024 { // printed with decimal suffixes: 1000 is 1k
		return appendDecimal(b, v, decimals[unit:])
	}
	i := bits.TrailingZeros64(uint64(v)) / 10
	b = strconv.AppendInt(b, v>>(10*i), 10)
	return append(b, binaries[i]...)
}

// appendDecimal appends v with the largest suffix that leaves an integer.
func appendDecimal(b []byte, v int64, suffixes []string) []byte {
	i := 0
	for v != 0 && v%1000 == 0 {
		v /= 1000
		i++
	}
	b = strconv.AppendInt(b, v, 10)
	if v == 0 {
		return b
	}
	return append(b, suffixes[i]...)
}
