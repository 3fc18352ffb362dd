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

// snapshot returns a copy of what q looks at. Pages from before q was added are left out: a rate would be divided by a
// range of which they have only other series.
func (t *target) snapshot(q *Query) snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := int64(0)
	for i := range q.selectors {
		since = max(since, sinceOf(t.added, q.selectors[i].text))
	}
	first, _ := slices.BinarySearch(t.times, since)
	c := snapshot{
		kept: t.kept, times: slices.Clone(t.times[first:]), families: t.families, found: t.found, leftOut: t.leftOut,
	}
	for _, s := range t.series {
		if q.selectsName(s.name()) {
			own := *s
			own.values = slices.Clone(s.values[first:])
			c.series = append(c.series, own)
		}
	}
	return c
}

// has reports whether the last page had a series that x selects; false once w is over.
func (c *snapshot) has(x *selector, w *work) bool { return c.hadAt(len(c.times)-1, x, w) }

// hadAt reports whether a series that x selects has a value at the time with this index; false once w is over.
func (c *snapshot) hadAt(at int, x *selector, w *work) bool {
	for i := range c.series {
		if s := &c.series[i]; isValue(s.values[at]) && s.name() == x.name && w.matches(x, s.labels) {
			return true
		}
	}
	return false
}
