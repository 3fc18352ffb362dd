package appmetrics

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// fits reports whether there is room for the whole page in x, which adds this many series. If there
// is, it takes the memory.
func (t *target) fits(x *scratch, added int, c *Config) bool {
	if len(t.series)+added > x.k.maxSeries(c) {
		return false
	}
	if added == 0 && t.kept == x.k && len(x.hits) <= len(t.rows) {
		return true
	}
	n := t.sizeWith(x, c)
	return n <= t.size || t.resize(n, c)
}

// claim is what a query needs: the series that it selects on a page and among the known series.
type claim struct {
	query  *Query
	series []int // indexes
	grows  bool  // whether it needs more than before
}

// fit restricts the page in x, which does not fit as a whole, to the queries for which there is room, and takes the
// memory for them. Queries that need no more than before come first, so that a metric that grows does not displace
// others. A query gets all of its series or none, so that nothing is computed from only some of them. If no
// query fits, the page is refused, and what is known is dropped once it may no longer be served.
func (t *target) fit(x *scratch, now int64, c *Config) error {
	all := make([]labels.Labels, 0, len(t.series)+len(x.hits))
	for _, s := range t.series {
		all = append(all, s.labels)
	}
	for i := range x.hits {
		if h := &x.hits[i]; h.series == nil && !h.labels.IsEmpty() {
			all = append(all, h.labels)
		}
	}

	var chosen Kept // only what points needs
	taken := make([]bool, len(all))
	count, size := 0, int64(targetBytes)
	left := map[*Query]*Error{}
	overShare := OverShareError(t.namespace)
	overLimit := Errorf(OverLimit, "the metrics of this pod together select more than %d series of its page, which is "+
		"the limit: filter them by label", x.k.maxSeries(c))
	var first *Error
	claims := t.claims(x.k, all, &x.work)
	if err := x.work.err(); err != nil {
		return err
	}
	for _, claim := range claims {
		with, added, bytes := chosen, 0, int64(0)
		with.reach(claim.query)
		for _, i := range claim.series {
			if !taken[i] {
				added++
				bytes += sizeOfSeries(all[i], 0)
			}
		}
		var err *Error
		n := size + bytes + sizeOfPoints(with.points(c.Interval))*int64(count+added)
		switch {
		case count+added > x.k.maxSeries(c):
			err = overLimit
		case n > t.size && !t.resize(n, c):
			err = overShare
		default:
			chosen, count, size = with, count+added, size+bytes
			for _, i := range claim.series {
				taken[i] = true
			}
			continue
		}
		left[claim.query] = err
		first = cmp.Or(first, err)
	}
	if len(left) == len(x.k.queries) {
		t.refuse(left, now, c)
		return cmp.Or(first, overShare)
	}
	t.restrict(x, left, taken)
	return nil
}

// claims returns the claims of the queries of k on all, whose first elements are the series of t. They
// are in the order in which the queries get room. They are not complete once w is over.
func (t *target) claims(k *Kept, all []labels.Labels, w *work) []claim {
	byName := map[string][]int{}
	for i, l := range all {
		name := l.Get(model.MetricNameLabel)
		byName[name] = append(byName[name], i)
	}
	claims := make([]claim, 0, len(k.queries))
	for _, q := range k.queries {
		one := claim{query: q, grows: t.kept == nil || !t.kept.covers(q)}
		for j := range q.selectors {
			s := &q.selectors[j]
			for _, i := range byName[s.name] {
				if w.matches(s, all[i]) {
					one.series = append(one.series, i)
					one.grows = one.grows || i >= len(t.series)
				}
			}
		}
		slices.Sort(one.series)
		one.series = slices.Compact(one.series)
		claims = append(claims, one)
	}
	slices.SortStableFunc(claims, func(a, b claim) int {
		if a.grows != b.grows {
			if b.grows {
				return -1
			}
			return 1
		}
		return cmp.Compare(len(a.series), len(b.series))
	})
	return claims
}

// restrict removes from t and from the page in x the series that only the queries in left need. taken says which of
// the series of t, and of the lines in x that have new labels after them, the others need.
func (t *target) restrict(x *scratch, left map[*Query]*Error, taken []bool) {
	if len(left) > 0 {
		chosen := slices.DeleteFunc(slices.Clone(x.k.queries), func(q *Query) bool { return left[q] != nil })
		if t.kept != nil && slices.Equal(t.kept.queries, chosen) {
			x.k = t.kept
		} else {
			x.k = Keep(chosen...)
		}
	}
	t.leftOut, x.partial = left, true
	needed := make(map[*series]bool, len(t.series))
	for i, s := range t.series {
		needed[s] = taken[i]
	}
	next := len(t.series)
	t.series = slices.DeleteFunc(t.series, func(s *series) bool { return !needed[s] })
	for i := range x.hits {
		h := &x.hits[i]
		keep := needed[h.series]
		if h.series == nil && !h.labels.IsEmpty() {
			keep = taken[next]
			next++
		}
		if !keep {
			h.series, h.labels = nil, labels.EmptyLabels()
		}
	}
}

// refuse records the reasons of the queries for which t has no values. The values of all others are
// served for as long as after a failed scrape; then everything is dropped.
func (t *target) refuse(reasons map[*Query]*Error, now int64, c *Config) {
	if n := len(t.times); n > 0 && now-t.times[n-1] > holdFor(c.Interval).Milliseconds() {
		t.kept, t.rows, t.times, t.series, t.families, t.found = nil, nil, nil, nil, nil, nil
		t.at, t.started, t.added = time.Time{}, 0, nil
		t.resize(0, c)
	}
	if t.kept != nil {
		maps.DeleteFunc(reasons, func(q *Query, _ *Error) bool { return t.kept.covers(q) })
	}
	t.leftOut = reasons
}
