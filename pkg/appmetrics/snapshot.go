package appmetrics

import "slices"

// snapshot is a copy of what a query looks at of a target. Pages keep arriving during an evaluation: if one came
// between the choice of a range and its use, the range would not fit the points.
type snapshot struct {
	kept     *Kept
	times    []int64
	series   []series
	families []Family
	found    *found
	leftOut  map[*Query]*Error
}

// copyTo makes c a copy in m of what q looks at. Pages from before q was added are left out: a rate would be divided
// by a range of which they have only other series.
func (t *target) copyTo(c *snapshot, q *Query, m *memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := int64(0)
	for i := range q.selectors {
		since = max(since, sinceOf(t.added, q.selectors[i].text))
	}
	first, _ := slices.BinarySearch(t.times, since)
	*c = snapshot{kept: t.kept, families: t.families, found: t.found, leftOut: t.leftOut}
	c.times = appendTo(&m.times, t.times[first:])
	before := len(m.series)
	for _, s := range t.series {
		if q.selectsName(s.name()) {
			own := *s
			own.values = appendTo(&m.values, s.values[first:])
			m.series = append(m.series, own)
		}
	}
	c.series = m.series[before:len(m.series):len(m.series)]
}

// has reports whether the last page had a series that x selects.
func (c *snapshot) has(x selector) bool {
	for i := range c.series {
		if c.series[i].satisfies(&x) {
			return true
		}
	}
	return false
}

// memory is the working memory of one evaluation, of which nothing is left in the answer. The next evaluation
// reuses it.
//
// Brings: a rate over 50 pods with 6 series each allocates 117 instead of 225 KB and takes 0.39 instead of 0.57 ms,
// together with the iterator that is reused. Nearly all of the rest is the engine's.
// Costs: nothing in it may be used after release. Up to 4 MiB stay allocated for each slot.
// Guard: TestEvaluateAllocations, TestMemoryIsReused.
// Remove when: the engine can evaluate series where they are stored.
type memory struct {
	states []state
	times  []int64
	series []series
	values []float64
	shown  []shown
}

// maxReused is the largest number of elements for which memory is reused. An evaluation over 300 pods with 6 series
// each has fewer.
const maxReused = 1 << 14

func (m *memory) release() {
	*m = memory{
		states: emptied(m.states), times: emptied(m.times), series: emptied(m.series), values: emptied(m.values),
		shown: emptied(m.shown),
	}
}

// emptied returns s for reuse, without references to anything.
func emptied[T any](s []T) []T {
	if cap(s) > maxReused {
		return nil
	}
	clear(s)
	return s[:0]
}

// appendTo appends s to all and returns the copy. It stays valid when all grows.
func appendTo[T any](all *[]T, s []T) []T {
	before := len(*all)
	*all = append(*all, s...)
	return (*all)[before:len(*all):len(*all)]
}
