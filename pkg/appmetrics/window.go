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
			if isHole(v) || isStale(v) {
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
	if points == 1 && before >= 0 {
		// The scrape in between failed. A range back to the page before it has both points.
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

// fillsRanges reports whether the pages of a pod reach back as far as the longest range, or nearly
// so. PromQL divides what was counted by the whole range: right after a start of this server, the
// rate over five minutes would be a fortieth of the true one.
func (e *evaluation) fillsRanges(p *state) bool {
	if !slices.ContainsFunc(e.q.uses, func(u use) bool { return u.whole }) {
		return true
	}
	first := len(p.times)
	for i := range p.series {
		isValue := func(v float64) bool { return !isHole(v) && !isStale(v) }
		if i := slices.IndexFunc(p.series[i].values, isValue); i >= 0 {
			first = min(first, i)
		}
	}
	if first == len(p.times) {
		return true // it has nothing, which is explained elsewhere
	}
	known := time.Duration(p.at-p.times[first]) * time.Millisecond
	return known+p.kept.Interval(e.s.config.Interval)*11/10 >= e.q.span
}
