package appmetrics

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"metrics-server/pkg/near"
)

// explain says why the expression has no value for a pod that answers.
func (e *evaluation) explain(p *state) *Error {
	if e.work.isOver() {
		return e.tooLong() // which Evaluate reports of all pods
	}
	if err := e.lacking(p); err != nil {
		return err
	}
	if e.onePoint(p) {
		return Errorf(TooFewPoints, "the pod has been scraped only once for this metric; a rate needs two scrapes: "+
			"retry in a few seconds")
	}
	remedy := ""
	if e.q.expression != "" {
		remedy = ": check its comparisons, and the labels by which it matches series with others"
	}
	return Errorf(NoResult, "the expression of metric %q returns nothing for the pod, although the pod exposes "+
		"the series that it selects%s", e.q.def.Name, remedy)
}

// tooLong is the error of an evaluation whose explanations take too long.
func (e *evaluation) tooLong() *Error {
	return Errorf(OverLimit, "finding out why metric %q has no value takes longer than %v: use = instead of =~ in its "+
		"expression, fewer or shorter patterns, or fewer selectors", e.q.def.Name, maxMatching)
}

// explainAll says why the expression has no value for pods that answer.
func (e *evaluation) explainAll(pods []*state) *Error {
	missing := make([]Missing, 0, len(pods))
	for _, p := range pods {
		missing = append(missing, Missing{Err: e.explain(p)})
	}
	return summarize(missing)
}

// lacking returns the error of a pod whose page lacks what the query needs, nil if it lacks nothing.
func (e *evaluation) lacking(p *state) *Error {
	for _, n := range e.q.needs {
		if !slices.ContainsFunc(n.anyOf, func(s selector) bool { return p.has(&s, &e.work) }) {
			return e.explainLack(&p.snapshot, n)
		}
	}
	if len(e.q.candidates) == 0 {
		return nil
	}
	if e.q.quantile != "" {
		if err := e.explainQuantile(&p.snapshot); err != nil {
			return err
		}
	}
	return e.lackingForDefault(p)
}

// lackingForDefault returns the error of a pod that has a series that the metric's name may mean, or a part of a
// histogram or summary of that name, but nothing that the default expression reads.
func (e *evaluation) lackingForDefault(p *state) *Error {
	n := need{name: e.q.needs[0].name}
	var there []string
	for _, s := range e.q.selectors {
		if slices.Contains(e.reads, s.name) {
			n.anyOf = append(n.anyOf, s)
		}
		if p.has(&s, &e.work) {
			there = append(there, s.name)
		}
	}
	if e.work.over || slices.ContainsFunc(n.anyOf, func(s selector) bool { return p.has(&s, &e.work) }) {
		return nil
	}
	if m, known := e.q.meaningOf(p.wanted); known {
		name := e.q.candidates[m.candidate].name
		if slices.ContainsFunc(there, func(s string) bool { return s == name || !declares(p.families, s) }) {
			return Errorf(WrongType, "the type of %s asks for the series %s, but the pod exposes only %s: correct the # TYPE "+
				"line, or expose these series", name, list(e.reads), list(there))
		}
		return e.explainLack(&p.snapshot, n) // other families
	}
	base, _ := cutSuffix(there[0])
	remedy := ""
	if count := base + "_count"; slices.Contains(there, count) {
		remedy = fmt.Sprintf(", or use %s_per_second to get its rate", count)
	}
	return Errorf(NoFamily, "the pod exposes %s, but no metric %s, and no type that makes %s a histogram or summary: "+
		"add a line \"# TYPE %s histogram\", or \"summary\"%s", list(there), base, base, base, remedy)
}

// knows reports whether series that s selects are kept.
func (k *Kept) knows(s selector) bool {
	return slices.ContainsFunc(k.selectors[s.name], func(o selector) bool { return o.text == s.text })
}

// serves reports whether all series that q selects are kept. Its selectors count if it was compiled again since.
func (k *Kept) serves(q *Query) bool {
	return slices.Contains(k.queries, q) || !slices.ContainsFunc(q.selectors, func(s selector) bool { return !k.knows(s) })
}

func (e *evaluation) explainLack(t *snapshot, n need) *Error {
	// The family is there, but not with such labels?
	if t.found != nil {
		for _, s := range n.anyOf {
			if _, ok := t.found.values[nameAndLabel{name: s.name}]; ok {
				return e.noMatch(t.found, s)
			}
		}
	}
	for _, f := range t.families {
		for _, s := range n.anyOf {
			if f.Name != s.name {
				continue
			}
			if len(e.q.candidates) == 0 && (f.Type == "histogram" || f.Type == "summary") {
				return Errorf(WrongType, "%s is a %s, so its series have names such as %s_sum and %s_count: use such a "+
					"name in the expression", f.Name, f.Type, f.Name, f.Name)
			}
			until := "the application sets it"
			if slices.Contains([]string{"counter", "histogram", "summary"}, f.Type) {
				until = "it has counted something"
			}
			return Errorf(NoMatch, "the pod declares metric %s, but exposes no series of it yet: wait until %s", f.Name, until)
		}
	}
	text := "the pod exposes no metric " + n.name
	if len(e.q.candidates) > 1 && e.q.def.Name != n.name {
		tried := make([]string, 0, len(e.q.candidates))
		for _, c := range e.q.candidates {
			tried = append(tried, c.name)
		}
		text = fmt.Sprintf("the pod exposes no metric for %q: tried %s", e.q.def.Name, list(tried))
	}
	remedy := ": check the name"
	if t.found != nil {
		if near := e.suggestions(t.found, n.name); len(near) > 0 {
			remedy = "; did you mean " + strings.Join(near, " or ") + "?"
		}
	}
	return Errorf(NoFamily, "%s%s", text, remedy)
}

// declares reports whether there is a family of this name.
func declares(families []Family, name string) bool {
	return slices.ContainsFunc(families, func(f Family) bool { return f.Name == name })
}

// maxCompared is for how many pods of an evaluation a missing name is compared with those of its page. The pages of the
// others are probably alike.
const maxCompared = 3

// suggestions returns the names of families on a page that resemble name: the same as on a page before, if there are
// some and this page has them, too.
func (e *evaluation) suggestions(f *found, name string) []string {
	has := func(family string) bool {
		_, ok := slices.BinarySearch(f.names, family)
		return ok
	}
	for _, near := range e.suggested[name] {
		if !slices.ContainsFunc(near, func(family string) bool { return !has(family) }) {
			return near
		}
	}
	if e.compared == maxCompared {
		return nil
	}
	e.compared++
	near := f.nearest(name)
	if len(near) > 0 {
		if e.suggested == nil {
			e.suggested = map[string][][]string{}
		}
		e.suggested[name] = append(e.suggested[name], near)
	}
	return near
}

// noMatch explains that a label filter matches nothing, with the values that there are.
func (e *evaluation) noMatch(f *found, s selector) *Error {
	var there []string
	for i, m := range s.matchers {
		values := f.values[nameAndLabel{s.name, m.Name}]
		if slices.ContainsFunc(values, func(v string) bool { return e.work.match(m, s.steps[i], v) }) {
			continue
		}
		if len(values) == 0 || len(values) == 1 && values[0] == "" {
			there = append(there, fmt.Sprintf("there is no label %s", m.Name))
			continue
		}
		quoted := make([]string, 0, len(values))
		for _, v := range values {
			quoted = append(quoted, fmt.Sprintf("%q", shorten(v)))
		}
		has := "has only"
		if len(quoted) > maxListed {
			has = "has the values"
		}
		there = append(there, fmt.Sprintf("label %s %s %s", m.Name, has, list(quoted)))
	}
	if len(there) == 0 {
		there = []string{"each value exists, but not in this combination"}
	}
	return Errorf(NoMatch, "no series matches %s: %s", s.text, strings.Join(there, "; "))
}

func (e *evaluation) explainQuantile(t *snapshot) *Error {
	for _, c := range e.q.candidates {
		switch familyType(c.name, t.families) {
		case "histogram":
			for i := range t.series {
				if s := &t.series[i]; s.name() == c.name+"_bucket" && s.now() && s.labels.Get("le") != "+Inf" {
					return nil
				}
			}
			return Errorf(NoBuckets, "%s is a histogram without buckets, so it has no quantiles: remove quantile "+
				"from metric.selector to get the mean", c.name)
		case "summary":
			var there []string
			for i := range t.series {
				s := &t.series[i]
				v := s.labels.Get("quantile")
				if s.name() != c.name || !s.now() || v == "" {
					continue
				}
				if v == e.q.quantile {
					return nil
				}
				there = append(there, v)
			}
			if len(there) == 0 {
				return Errorf(NoBuckets, "%s is a summary without quantiles: remove quantile from metric.selector to "+
					"get the mean", c.name)
			}
			slices.Sort(there)
			return Errorf(NoMatch, "%s is a summary without the quantile %s: it has %s", c.name, e.q.quantile,
				list(slices.Compact(there)))
		}
	}
	return nil
}

// onePoint reports whether all series that the query selects of a pod have one point, apart from those from before an
// outage.
func (e *evaluation) onePoint(p *state) bool {
	if e.q.span == 0 {
		return false
	}
	hold := holdFor(e.s.config.Interval).Milliseconds()
	for i := range p.series {
		s, points := &p.series[i], 0
		for i, v := range s.values {
			if isValue(v) && p.at-p.times[i] <= hold {
				points++
			}
		}
		selects := func(x selector) bool { return x.name == s.name() && e.work.matches(&x, s.labels) }
		if points > 1 && slices.ContainsFunc(e.q.selectors, selects) {
			return false
		}
	}
	return true
}

// notFinite explains a value that is not a number.
func (e *evaluation) notFinite(v float64) *Error {
	if len(e.q.candidates) > 0 && math.IsNaN(v) {
		for _, f := range e.answer.Families {
			if f.Type == "histogram" || f.Type == "summary" {
				return Errorf(NoObservations, "%s has no observations in the window, so there is neither a mean nor a "+
					"quantile: wait for some, set a longer window, or scale by a rate", f.Name)
			}
		}
	}
	what := "NaN, which is not a number"
	switch {
	case math.IsInf(v, 0):
		what = "infinite"
	case !math.IsNaN(v):
		what = "outside of ±2^50, the largest value served"
	}
	hint := ""
	if e.q.divides && (math.IsNaN(v) || math.IsInf(v, 0)) {
		hint = "; a division by zero gives such a value: exclude it with \"> 0\" on the divisor, and say with \"or\" what " +
			"applies instead"
	}
	return Errorf(NotFinite, "the value of metric %q is %s%s", e.q.def.Name, what, hint)
}

// warn adds warnings about probable mistakes in an expression that the HPA gives.
func (e *evaluation) warn() {
	for _, u := range e.q.uses {
		name := u.selector.name
		kind := familyType(name, e.answer.Families)
		counter := isCounter(name, e.answer.Families)
		var text string
		switch {
		case u.level && counter && (kind == "counter" || kind == "untyped"):
			text = fmt.Sprintf("%s is a counter, so its value only grows: write rate(%s[1m])", name, u.selector.text)
		case u.rate != "" && kind == "gauge":
			text = fmt.Sprintf("%s is a gauge, and %s is for counters: use the value itself, or deriv", name, u.rate)
		}
		if text != "" && !slices.Contains(e.answer.Warnings, text) {
			e.answer.Warnings = append(e.answer.Warnings, text)
		}
	}
}

// nearest returns at most three of names that resemble name, the most similar first.
func nearest(name string, names []string) []string {
	const most = 3
	type match struct {
		name     string
		distance int
	}
	var matches []match
	stemOfName := stem(name)
	for _, n := range names {
		if len(n) > 150 || len(name) > 150 {
			continue
		}
		d, ok := typos(name, n)
		if stemOfN := stem(n); stemOfName != name || stemOfN != n { // otherwise it is the same distance
			if ofStems, alike := typos(stemOfName, stemOfN); alike && (!ok || ofStems < d) {
				d, ok = ofStems, true
			}
		}
		switch {
		case ok:
			matches = append(matches, match{n, d})
		case len(name) >= 4 && (strings.Contains(n, name) || len(n) >= 4 && strings.Contains(name, n)):
			matches = append(matches, match{n, 100 + len(n)})
		}
	}
	slices.SortFunc(matches, func(a, b match) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	var found []string
	for _, m := range matches[:min(len(matches), most)] {
		found = append(found, m.name)
	}
	return found
}

// stem returns the part of a metric's name that it shares with the families that it may mean: both
// requests-per-second and requests_total have the stem requests.
func stem(name string) string {
	plain := strings.ReplaceAll(name, "-", "_")
	for _, suffix := range []string{"_per_second", "_total"} {
		if s, ok := strings.CutSuffix(plain, suffix); ok && s != "" {
			return s
		}
	}
	return plain
}

// typos returns the edit distance of two names, and false if it is too large for one to be a
// misspelling of the other.
func typos(name, other string) (distance int, ok bool) {
	limit := max(2, len(name)/4)
	if longer := len(other) - len(name); longer < -limit || longer > limit {
		return 0, false
	}
	distance = near.Distance(name, other)
	return distance, distance <= limit
}
