package appmetrics

import (
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// found is what a page has instead of the series that it lacks, for suggestions in errors.
type found struct {
	at    int64
	kept  *Kept
	names []string // of families
	// values has the values of each label of a wanted family, sorted: at most one more than errors list, so that list
	// can tell that there are more.
	values map[nameAndLabel][]string

	mu   sync.Mutex
	near map[string][]string // results of nearest, by name, because it takes long for hostile names
}

type nameAndLabel struct{ name, label string }

// nearest returns the names of families that resemble name.
func (f *found) nearest(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	near, known := f.near[name]
	if !known {
		if f.near == nil {
			f.near = map[string][]string{}
		}
		near = nearest(name, f.names)
		f.near[name] = near
	}
	return near
}

// explain parses the page once more if a selector finds nothing on it, and remembers what the page
// has instead.
func (t *target) explain(now int64, f format, page []byte, x *scratch, c *Config) {
	if !x.changed && t.found == nil {
		return // whatever is wanted was there, and still is
	}
	if lacks := t.lacks(&x.work); !lacks || x.work.err() != nil { // then the values count, but are not explained
		if t.found != nil {
			t.found = nil
			t.resize(t.sizeOf(c), c)
		}
		return
	}
	if t.found != nil && t.found.kept == t.kept && now-t.found.at < explainEvery.Milliseconds() {
		return
	}
	v := &valueCollector{x: x, values: map[nameAndLabel][]string{}}
	if err := parse(f, x.filtered, v); err != nil {
		return // cannot happen: the page was parsed before
	}
	t.found = &found{at: now, kept: t.kept, names: familyNames(f, page), values: v.values}
	if !t.resize(t.sizeOf(c), c) {
		t.found.names, t.found.values = nil, nil // an explanation without suggestions
		t.resize(t.sizeOf(c), c)
	}
}

// lacks reports whether the last page had nothing for a need; true once w is over.
func (t *target) lacks(w *work) bool {
	has := func(x selector) bool {
		return slices.ContainsFunc(t.series, func(s *series) bool { return s.satisfies(&x, w) })
	}
	for _, n := range t.kept.needs {
		if !slices.ContainsFunc(n.anyOf, has) {
			return true
		}
	}
	return false
}

// valueCollector collects the values of the labels that selectors look at.
type valueCollector struct {
	x      *scratch
	values map[nameAndLabel][]string
}

func (*valueCollector) family([]byte, model.MetricType) {}

func (v *valueCollector) sample(_ []byte, _ float64, read func(*labels.Labels)) error {
	var l labels.Labels
	read(&l)
	name := l.Get(model.MetricNameLabel)
	if _, wanted := v.x.k.selectors[name]; !wanted {
		return nil
	}
	l = v.x.withTarget(l)
	v.values[nameAndLabel{name: name}] = nil
	for _, s := range v.x.k.selectors[name] {
		for _, m := range s.matchers {
			k := nameAndLabel{name, m.Name}
			text := strings.Clone(l.Get(m.Name))
			if at, exists := slices.BinarySearch(v.values[k], text); !exists && len(v.values[k]) <= maxListed {
				v.values[k] = slices.Insert(v.values[k], at, text)
			}
		}
	}
	return nil
}
