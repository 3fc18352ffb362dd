// Package ring keeps the recent points of one counter and computes its rate. It is pure and knows
// neither nodes nor containers. A Ring is a plain value; its owner synchronises access to it.
package ring

import (
	"math"
	"math/bits"

	"metrics-server/pkg/sample"
)

// Size points are enough, however often a counter is sampled: points before the newest are kept at least
// a third of the window apart (see Push), so the oldest of four is always at least two thirds of a
// window older than the newest, which is all that is ever looked for.
const Size = 4

// Point is the value of a counter at a moment.
type Point struct {
	Time  sample.Time // never 0 in a ring
	Value uint64
}

// Ring holds points of one counter in which the counter does not fall, newest first. The zero value is
// empty.
// Invariant: times descend, unused points are zero, and only the newest and the oldest point may have
// a neighbour closer than the distance given to Push.
type Ring [Size]Point

// Empty reports whether r has no points.
func (r *Ring) Empty() bool { return r[0].Time == 0 }

// Len is how many points r has.
func (r *Ring) Len() int {
	for n := Size; n > 0; n-- {
		if r[n-1].Time != 0 {
			return n
		}
	}
	return 0
}

// Push adds a point that is newer than all others. It replaces the newest one if that is closer than
// distance to the one before.
func (r *Ring) Push(p Point, distance sample.Time) {
	if r[1].Time == 0 || r[0].Time-r[1].Time >= distance {
		r[3], r[2], r[1] = r[2], r[1], r[0]
	}
	r[0] = p
}

// Base returns the point with which the newest one is to be compared: the newest that is at least
// distance older, otherwise the oldest. It returns false if r has fewer than two points.
func (r *Ring) Base(distance sample.Time) (Point, bool) {
	oldest := r[0]
	for _, p := range r[1:] {
		if p.Time == 0 {
			break
		}
		if oldest = p; r[0].Time-p.Time >= distance {
			break
		}
	}
	return oldest, oldest != r[0]
}

// Rate returns by how much a counter grows per second from a to b, which is later and not smaller: in
// nanoseconds per second if it counts nanoseconds. The rate is at most what a signed number can hold.
func Rate(a, b Point) uint64 {
	window := uint64(b.Time - a.Time)
	hi, lo := bits.Mul64(b.Value-a.Value, 1000) // times are in milliseconds
	if hi >= window {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, window)
	return min(q, math.MaxInt64)
}
