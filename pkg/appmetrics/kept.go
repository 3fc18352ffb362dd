package appmetrics

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// startTime is the series by which a process says when it started.
const startTime = "process_start_time_seconds"

// selector selects series by name and labels.
type selector struct {
	name     string
	matchers []*labels.Matcher // without the one of the name
	steps    []int             // that each matcher takes at most for a byte of a value
	text     string            // as PromQL writes it
}

func newSelector(name string, matchers []*labels.Matcher) selector {
	s := selector{name: name, matchers: matchers, text: selectorText(name, matchers)}
	for _, m := range matchers {
		s.steps = append(s.steps, stepsOf(m))
	}
	return s
}

func (q *Query) selectsName(name string) bool {
	for i := range q.selectors {
		if q.selectors[i].name == name {
			return true
		}
	}
	return false
}

func matchAll(l labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// Kept says which series Store.Record keeps of a pod's pages: those that the pod's queries select. It is
// immutable. Let all pods with the same queries share one: when Record gets another Kept for a pod than
// before, it matches all series of the page again.
type Kept struct {
	queries   []*Query
	selectors map[string][]selector
	names     []string // of selectors, sorted; requested with every scrape
	// families has the families whose types are kept; the value is the name under which OpenMetrics
	// has the samples of a counter.
	families map[string]familyName
	needs    []need
	span     time.Duration // how far the longest expression looks back
	interval time.Duration // how often the shortest range needs a page; 0: as usual
	grouped  bool          // whether a query is Grouped
	// steps and matchers bound what matching a page takes: for a byte of the page, and for a line.
	steps, matchers int64
}

type familyName struct{ name, total string }

// need is what a query cannot do without: series that one of the selectors selects.
type need struct {
	name  string // as the user calls it
	anyOf []selector
}

// Keep returns what the queries need.
func Keep(queries ...*Query) *Kept {
	k := &Kept{queries: queries, selectors: map[string][]selector{}, families: map[string]familyName{}}
	seen := map[string]bool{}
	for _, q := range queries {
		for _, s := range q.selectors {
			if !seen[s.text] {
				seen[s.text] = true
				k.selectors[s.name] = append(k.selectors[s.name], s)
				k.matchers += int64(len(s.matchers))
				for _, n := range s.steps {
					k.steps += int64(n)
				}
			}
		}
		k.needs = append(k.needs, q.needs...)
		k.grouped = k.grouped || q.def.Shape == Grouped
		k.reach(q)
	}
	add := func(name string) { k.families[name] = familyName{name: name, total: name + "_total"} }
	for name := range k.selectors {
		add(name)
		if base, ok := cutSuffix(name); ok {
			add(base)
		}
		if base, ok := strings.CutSuffix(name, "_total"); ok {
			add(base)
		}
	}
	if _, ok := k.selectors[startTime]; !ok {
		k.selectors[startTime] = nil // read, but kept only on request
	}
	k.names = slices.Sorted(maps.Keys(k.selectors))
	return k
}

// covers reports whether all that q needs is kept. As for serves, q may have been compiled again since.
func (k *Kept) covers(q *Query) bool {
	with := *k
	with.reach(q)
	return k.serves(q) && with.span == k.span && with.interval == k.interval
}

// reach extends the span and the interval of k to those of q.
func (k *Kept) reach(q *Query) {
	k.span = max(k.span, q.span)
	if q.interval > 0 && (k.interval == 0 || q.interval < k.interval) {
		k.interval = q.interval
	}
}

// maxSeries returns how many series of a page are kept at most. A page with series of all namespaces has many.
func (k *Kept) maxSeries(c *Config) int {
	if k.grouped {
		return max(c.MaxSeries, maxLines)
	}
	return c.MaxSeries
}

// Names returns the names of the series to ask for, sorted, for clients that can be asked for less
// than everything. They must not be changed.
func (k *Kept) Names() []string { return k.names }

// Interval returns how often the pods have to be asked: usual, or less if an expression has a range
// that would otherwise not hold two points.
func (k *Kept) Interval(usual time.Duration) time.Duration {
	if k.interval > 0 {
		return min(usual, k.interval)
	}
	return usual
}

func (k *Kept) wantsSample(name []byte) bool {
	_, ok := k.selectors[string(name)]
	return ok
}

func (k *Kept) wantsFamily(name []byte) bool {
	if _, ok := k.families[string(name)]; ok {
		return true
	}
	return string(name) == startTime
}

// keeps reports whether a selector selects the series; false once w is over.
func (k *Kept) keeps(l labels.Labels, w *work) bool {
	selectors := k.selectors[l.Get(model.MetricNameLabel)]
	for i := range selectors {
		if w.matches(&selectors[i], l) {
			return true
		}
	}
	return false
}
