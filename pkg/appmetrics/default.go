package appmetrics

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// compileDefault prepares what can be known before the family's type is.
func (q *Query) compileDefault() error {
	name, w := q.def.Name, q.def.Window
	if name == "" || len(name) > maxName {
		return Errorf(BadExpression, "the name of a metric must have 1 to %d bytes", maxName)
	}
	if w < minRange || w > maxRange {
		return Errorf(OverLimit, "the window of metric %q is %s; it has to be between %s and %s", name, w, minRange, maxRange)
	}
	q.span = w
	if w < 2*DefaultInterval {
		q.interval = w / 2
	}
	q.candidates = candidates(name)
	own := q.matchers
	n := need{name: strings.TrimSuffix(strings.ReplaceAll(name, "-", "_"), "_per_second")}
	for _, c := range q.candidates {
		q.selectors = append(q.selectors, newSelector(c.name, own))
		if c.rate {
			continue
		}
		suffixes := []string{"_sum", "_count"}
		if q.quantile != "" {
			suffixes = append(suffixes, "_bucket")
		}
		for _, s := range suffixes {
			q.selectors = append(q.selectors, newSelector(c.name+s, own))
		}
	}
	n.anyOf = q.selectors
	q.needs = []need{n}
	return nil
}

// candidates returns the families that a metric's name may mean, the likeliest first.
func candidates(name string) []candidate {
	var all []candidate
	add := func(name string, rate bool) {
		for _, c := range all {
			if c.name == name {
				return
			}
		}
		all = append(all, candidate{name, rate})
	}
	add(name, false)
	plain := strings.ReplaceAll(name, "-", "_")
	add(plain, false)
	base, rate := strings.CutSuffix(plain, "_per_second")
	if rate && base != "" {
		add(base+"_total", true)
		add(base, true)
	} else {
		add(plain+"_total", true) // OpenMetrics calls this family NAME
	}
	return all
}

// chosen is the default expression for a family that is there.
type chosen struct {
	name       string
	reads      []string // names of the series that it reads
	expression func(shape Shape, window time.Duration) string
	level      bool // whether the expression does not depend on window
	// observations says that an observation is needed for a value.
	observations bool
}

// choose returns the default expression for a family of a type, or why there is none.
func (q *Query) choose(c candidate, kind string) (*chosen, *Error) {
	sel := func(suffix string, extra ...*labels.Matcher) string {
		for i := range q.selectors {
			if s := &q.selectors[i]; len(extra) == 0 && s.name == c.name+suffix {
				return s.text // selectorText has PromQL parsed
			}
		}
		return selectorText(c.name+suffix, append(extra, q.matchers...))
	}
	by := func(s Shape, more ...string) string {
		if s == PerPod {
			more = append([]string{"pod"}, more...)
		}
		if len(more) == 0 {
			return ""
		}
		return "by (" + strings.Join(more, ", ") + ") "
	}
	rate := func(selector string, w time.Duration) string {
		return fmt.Sprintf("rate(%s[%s])", selector, model.Duration(w))
	}
	x := &chosen{name: c.name, reads: []string{c.name}}
	// A label that happens to be called "quantile" is one like all others.
	if q.quantile != "" && kind != "histogram" && kind != "summary" {
		plain := sel
		sel = func(suffix string, extra ...*labels.Matcher) string {
			return plain(suffix, append(extra, q.quantileOwn)...)
		}
	}

	switch {
	case kind == "histogram" && c.rate, kind == "summary" && c.rate:
		return nil, Errorf(WrongType, "the name of metric %q asks for a rate, but %s is a %s: use %s to get its "+
			"mean, or %s_count to get the rate of observations", q.def.Name, c.name, kind, c.name, c.name)
	case kind == "gauge" && c.rate:
		return nil, Errorf(WrongType, "the name of metric %q asks for a rate, but %s is a gauge and not a counter: "+
			"use %s to get its value", q.def.Name, c.name, c.name)
	case kind == "counter" || c.rate || kind == "untyped" && strings.HasSuffix(c.name, "_total"):
		own := sel("")
		x.expression = func(s Shape, w time.Duration) string { return "sum " + by(s) + "(" + rate(own, w) + ")" }
	case kind == "histogram" && q.quantile != "":
		x.observations, x.reads = true, []string{c.name + "_bucket"}
		buckets := sel("_bucket")
		x.expression = func(s Shape, w time.Duration) string {
			return fmt.Sprintf("histogram_quantile(%s, sum %s(%s))", q.quantile, by(s, "le"), rate(buckets, w))
		}
	case kind == "summary" && q.quantile != "":
		own := sel("", labels.MustNewMatcher(labels.MatchEqual, "quantile", q.quantile))
		x.expression = func(s Shape, _ time.Duration) string { return "max " + by(s) + "(" + own + ")" }
		x.level, x.observations = true, true
	case kind == "histogram" || kind == "summary":
		x.observations, x.reads = true, []string{c.name + "_sum", c.name + "_count"}
		sum, count := sel("_sum"), sel("_count")
		x.expression = func(s Shape, w time.Duration) string {
			return fmt.Sprintf("sum %s(%s) / sum %s(%s)", by(s), rate(sum, w), by(s), rate(count, w))
		}
	default:
		own := sel("")
		x.expression = func(s Shape, _ time.Duration) string { return "sum " + by(s) + "(" + own + ")" }
		x.level = true
	}
	return x, nil
}
