package appmetrics

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// likeOthers says how pods without a value count in a sum.
const likeOthers = "assumed to have the mean value of the other pods"

// total adds the values of all pods up to a single one. Up to a fifth of the pods may not answer:
// they are counted at the mean of the others.
func (e *evaluation) total() {
	a, gone := e.answer, e.gone()
	if len(a.Values) == 0 || !e.complete(gone) {
		return
	}
	sum, oldest := 0.0, a.Values[0]
	slices.SortFunc(a.Values, func(x, y Value) int { return strings.Compare(x.Pod, y.Pod) }) // the same sum each time
	for _, v := range a.Values {
		sum += v.Value
		if v.Time.Before(oldest.Time) {
			oldest = v
		}
	}
	answer := len(a.Values) + len(a.Missing) - len(gone)
	sum += sum / float64(answer) * float64(len(gone))
	if !finite(sum) {
		e.fail(e.notFinite(sum))
		return
	}
	a.Filled = len(gone)
	a.Values = []Value{{Value: sum, Time: oldest.Time, Window: oldest.Window}}
	if a.Filled > 0 {
		a.Warnings = append(a.Warnings, fmt.Sprintf("%d of %d pods have no value and are "+likeOthers,
			a.Filled, answer+a.Filled))
	}
}

// single evaluates an expression that has one value. A pod that is missing is an error unless the
// value is a ratio, a mean or the like.
func (e *evaluation) single(ctx context.Context, expression string, window time.Duration, scaleFree bool) {
	a := e.answer
	if !e.tolerates(scaleFree, "left out") {
		return
	}
	v, err := e.run(ctx, expression, e.live)
	switch {
	case err != nil:
		e.fail(err)
	case len(v) == 0:
		e.fail(e.explainAll(e.live))
	case len(v) > 1:
		e.fail(Errorf(WrongShape, "the expression of metric %q returns several values, which differ in the labels "+
			"%s; metrics of types Object and External need a single one: write sum(...)", e.q.def.Name,
			differing(v[0].Metric, v[1].Metric)))
	case v[0].H != nil:
		e.fail(Errorf(WrongShape, "the expression of metric %q returns a histogram", e.q.def.Name))
	case !finite(v[0].F):
		e.fail(e.notFinite(v[0].F))
	default:
		a.Values = []Value{{Value: v[0].F, Time: e.timeOf(e.oldest().at), Window: window}}
	}
}

// tolerates reports whether an expression over all pods may be evaluated without those that are missing. Otherwise it
// sets the error. tolerant says whether missing pods hardly matter, and how how they are treated then.
func (e *evaluation) tolerates(tolerant bool, how string) bool {
	a := e.answer
	missing, all := len(a.Missing), len(a.Missing)+len(e.live)
	switch {
	case missing == 0:
		return true
	case !tolerant:
		a.err = Errorf(Incomplete, "the expression of metric %q needs a value from every pod, because only a sum over "+
			"pods, and a ratio, mean, minimum, maximum or quantile that does not grow with their number, tolerate missing "+
			"pods: %s", e.q.def.Name, summarize(a.Missing).Text)
		return false
	case 5*missing > all:
		a.err = Errorf(Incomplete, "more than a fifth of the pods have no value for metric %q: %s", e.q.def.Name,
			summarize(a.Missing).Text)
		return false
	}
	a.Filled = missing
	a.Warnings = append(a.Warnings, fmt.Sprintf("%d of %d pods have no value and are %s", missing, all, how))
	return true
}

// grouped evaluates an expression that has a value for each of several objects. Missing pods are treated as in a single
// value: a sum counts them at the mean of the others.
func (e *evaluation) grouped(ctx context.Context) {
	a, q := e.answer, e.q
	how, factor := "left out", 1.0
	if q.sum {
		how, factor = likeOthers, float64(len(e.live)+len(a.Missing))/float64(len(e.live))
	}
	if !e.tolerates(q.sum || q.scaleFree, how) {
		return
	}
	v, err := e.run(ctx, q.expression, e.live)
	switch {
	case err != nil:
		e.fail(err)
		return
	case len(v) == 0:
		e.fail(e.explainAll(e.live))
		return
	}
	oldest := e.timeOf(e.oldest().at)
	for i := range v {
		if v[i].H != nil {
			e.fail(Errorf(WrongShape, "the expression of metric %q returns a histogram", q.def.Name))
			return
		}
		a.Values = append(a.Values, Value{Labels: v[i].Metric, Value: factor * v[i].F, Time: oldest, Window: q.span})
	}
}

// oldest returns the pod whose last page is the oldest.
func (e *evaluation) oldest() *state {
	return slices.MinFunc(e.live, func(x, y *state) int { return cmp.Compare(x.at, y.at) })
}

// complete reports whether at most a fifth of the pods do not answer. Otherwise it sets the error.
func (e *evaluation) complete(gone []Missing) bool {
	a := e.answer
	if 5*len(gone) <= len(a.Values)+len(a.Missing) {
		return true
	}
	a.Values = nil
	a.err = Errorf(Incomplete, "more than a fifth of the pods have no value for metric %q: %s", e.q.def.Name,
		summarize(gone).Text)
	return false
}

// gone returns the pods that do not answer.
func (e *evaluation) gone() []Missing {
	return slices.DeleteFunc(slices.Clone(e.answer.Missing), func(m Missing) bool { return m.silent() })
}

// silent reports whether the pod answers but has nothing that the expression selects. It then
// contributes nothing to a single value, as in Prometheus.
func (m *Missing) silent() bool {
	return slices.Contains([]Cause{NoFamily, NoMatch, NoResult, NoObservations}, m.Err.Cause)
}
