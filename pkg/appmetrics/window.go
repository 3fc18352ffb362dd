package appmetrics

import (
	"slices"
	"time"
)

// window returns the range over which the rate of a pod's family is right, 0 if there are not two
// points. PromQL extrapolates to the start of the range only if the first point is within 1.1 times the
// mean spacing of points. If it is farther away, as with a pod that is new or was scraped late, the rate
// is up to a half too low. In that case the range is shortened.
func (e *evaluation) window(p *state, name string) time.Duration {
	w := e.q.def.Window
	first, before := len(p.times), -1 // the first page within w that has the family, and the last one before it
	for i := range p.series {
		s := &p.series[i]
		if !s.isOf(name) {
			continue
		}
		for i, v := range s.values {
			if !isValue(v) {
				continue
			}
			if p.at-p.times[i] < w.Milliseconds() {
				first = min(first, i)
				break
			}
			before = max(before, i)
		}
	}
	points := len(p.times) - first
	if points == 1 && before >= 0 && p.at-p.times[before] <= holdFor(e.s.config.Interval).Milliseconds() {
		// The scrape in between failed. A range back to the page before it has both points. After a longer gap, a pod is
		// like a new one: a mean over an outage describes past load.
		return time.Duration(p.at-p.times[before]+1) * time.Millisecond
	}
	if points < 2 {
		return 0
	}
	known := time.Duration(p.at-p.times[first]) * time.Millisecond
	longest := min(known+known/time.Duration(points-1)*11/10, w)
	for i := range p.series {
		if first > 0 {
			break // there are pages before the range
		}
		s := &p.series[i]
		// PromQL does not extrapolate beyond the moment at which a counter would have been zero.
		if grown := s.last - s.values[first]; s.isOf(name) && grown > 0 &&
			s.values[first] < grown*float64(longest-known)/float64(known) {
			return known + time.Millisecond
		}
	}
	if longest == w {
		return w
	}
	// Rounded, so that most pods share one evaluation.
	for _, unit := range []time.Duration{e.s.config.Interval, time.Second} {
		if r := longest.Truncate(unit); r > known {
			return r
		}
	}
	return longest.Truncate(time.Millisecond)
}

// isOf reports whether a series belongs to the family name.
func (s *series) isOf(name string) bool {
	own := s.name()
	base, _ := cutSuffix(own)
	return own == name || base == name
}

// fillsRanges reports whether a pod has the pages that the ranges of the expression need. PromQL divides what was
// counted by the whole range: right after a start of this server, the rate over five minutes would be a fortieth of the
// true one. The same is true after scrapes failed: pages from before a gap that hides the last values, or from before
// the range, do not help.
func (e *evaluation) fillsRanges(p *state) bool {
	covered := false // whether the pages must cover the ranges
	for i := range e.q.uses {
		u := &e.q.uses[i]
		if u.within > 0 && p.has(&u.selector, &e.work) && !p.fills(u, &e.work) {
			return false
		}
		covered = covered || u.whole || u.counts
	}
	if !covered {
		return true
	}
	first := len(p.times)
	for i := range p.series {
		if i := slices.IndexFunc(p.series[i].values, isValue); i >= 0 {
			first = min(first, i)
		}
	}
	if first == len(p.times) {
		return true // it has nothing, which is explained elsewhere
	}
	hold := holdFor(e.s.config.Interval).Milliseconds()
	for i := first + 1; i < len(p.times); i++ {
		if p.times[i]-p.times[i-1] > hold {
			first = i
		}
	}
	known := time.Duration(p.at-p.times[first]) * time.Millisecond
	return known+p.kept.Interval(e.s.config.Interval)*11/10 >= e.q.span
}

// fills reports whether the range of a use has the two values that its function compares and, for a function that
// extrapolates, whether PromQL does so to at least nine tenths of the range: the HPA controller tolerates a tenth. If a
// page is missing at the start of the range, PromQL extrapolates by only half of the distance between pages.
func (p *state) fills(u *use, w *work) bool {
	first, _ := slices.BinarySearch(p.times, p.at-u.within.Milliseconds()+1) // a range does not include its start
	values := 0
	for i := len(p.times) - 1; i >= first && values < 2; i-- {
		if p.hadAt(i, &u.selector, w) {
			values++
		}
	}
	if values < 2 || !u.whole {
		return values == 2
	}
	known := time.Duration(p.at-p.times[first]) * time.Millisecond
	distance := known / time.Duration(len(p.times)-1-first)
	if u.within-known <= distance*3/2 {
		return true // no page is missing, though one may be late
	}
	return known+distance/2 >= u.within*9/10
}
