package history

import (
	"math"
	"slices"
)

// The columns of a series. Those of nodes have the first two only.
const (
	columnCPU = iota // nanocores
	columnMemory
	columnPods
	columnMissing
	numColumns

	nodeColumns = columnMemory + 1
)

// point has a code for each column.
type point [numColumns]code

// code is a number in 16 bits: 0, or its logarithm in octaves, in steps of 1/codesPerOctave.
//
// Brings: half of the memory of float32, about 17 MiB at 1,000 nodes and 30,000 pods over 24 hours.
// Costs: a relative error of up to 0.034 %.
// Guard: TestCode.
// Remove when: somebody needs more digits than a graph shows.
type code uint16

const (
	gap            code = math.MaxUint16 // nothing is known
	codesPerOctave      = 1023           // times 64 octaves is less than gap
)

// encode returns the code of v.
func encode(v uint64) code {
	if v == 0 {
		return 0
	}
	return 1 + code(math.Round(math.Log2(float64(v))*codesPerOctave))
}

// value returns the number that c, which is no gap, stands for.
func (c code) value() float64 {
	if c == 0 {
		return 0
	}
	return math.Exp2(float64(c-1) / codesPerOctave)
}

// blockMinutes is how many points are allocated at once: few enough that a workload of a few
// minutes is cheap, and as many as make the columns a size class of the allocator.
const blockMinutes = 60

// series are the points of one node, namespace or workload.
type series struct {
	columns int
	blocks  []block // sorted by start
}

func newSeries(k Key) *series {
	if k.isNode() {
		return &series{columns: nodeColumns}
	}
	return &series{columns: numColumns}
}

// block has the points of blockMinutes minutes from start, which is a multiple of it.
type block struct {
	start int64
	codes []code // by column and minute
}

// set stores the point of a minute, which is not before any other.
func (s *series) set(minute int64, p point) {
	start := minute - minute%blockMinutes
	if n := len(s.blocks); n == 0 || s.blocks[n-1].start != start {
		s.blocks = append(s.blocks, block{start, slices.Repeat([]code{gap}, s.columns*blockMinutes)})
	}
	codes := s.blocks[len(s.blocks)-1].codes
	for column, at := 0, int(minute-start); column < s.columns; column, at = column+1, at+blockMinutes {
		codes[at] = p[column]
	}
}

// dropBefore drops the blocks that have no minute from minute on.
func (s *series) dropBefore(minute int64) {
	n := 0
	for n < len(s.blocks) && s.blocks[n].start+blockMinutes <= minute {
		n++
	}
	s.blocks = slices.Delete(s.blocks, 0, n)
}

// dropFrom drops the points from minute on.
func (s *series) dropFrom(minute int64) {
	for n := len(s.blocks); n > 0 && s.blocks[n-1].start >= minute; n-- {
		s.blocks = slices.Delete(s.blocks, n-1, n)
	}
	if n := len(s.blocks); n > 0 {
		b := s.blocks[n-1]
		for at := max(0, minute-b.start); at < blockMinutes; at++ {
			for column := range s.columns {
				b.codes[column*blockMinutes+int(at)] = gap
			}
		}
	}
}
