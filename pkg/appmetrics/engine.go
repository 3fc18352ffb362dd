package appmetrics

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
)

// run evaluates an expression over some of the pods.
func (e *evaluation) run(ctx context.Context, expression string, pods []*state) (promql.Vector, *Error) {
	at := e.now.UnixMilli()
	series := &querier{LabelQuerier: storage.NoopQuerier(), pods: pods, now: at}
	q, err := e.s.engine.NewInstantQuery(ctx, series, nil, expression, time.UnixMilli(at))
	if err != nil {
		return nil, Errorf(BadExpression, "the expression of metric %q cannot be evaluated: %s", e.q.def.Name,
			shorten(err.Error()))
	}
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return nil, e.explainFailure(ctx, result.Err)
	}
	switch v := result.Value.(type) {
	case promql.Vector:
		return slices.Clone(v), nil // Close reuses the engine's slice
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V}}, nil
	}
	return nil, Errorf(WrongShape, "the expression of metric %q returns neither a vector nor a number", e.q.def.Name)
}

// explainFailure turns an error of the engine into a cause.
func (e *evaluation) explainFailure(ctx context.Context, err error) *Error {
	var (
		samples  promql.ErrTooManySamples
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
	)
	name := e.q.def.Name
	switch {
	case errors.As(err, &samples):
		return Errorf(OverLimit, "the expression of metric %q needs more than %d samples at a time: shorten its "+
			"ranges or select fewer series", name, e.s.config.MaxSamples)
	case errors.Is(err, errSelected):
		return Errorf(OverLimit, "the expression of metric %q selects more than %d series: filter them by label",
			name, maxSelected)
	case ctx.Err() != nil:
		return errCanceled
	case errors.As(err, &timeout), errors.As(err, &canceled), errors.Is(err, context.DeadlineExceeded):
		// The engine's time limit, wherever it took effect.
		return Errorf(OverLimit, "the expression of metric %q takes longer than %s: simplify it, or give the custom metrics "+
			"server more CPU", name, e.s.config.Timeout)
	}
	return Errorf(WrongShape, "the expression of metric %q cannot be evaluated: %s", name, shorten(err.Error()))
}

// perPod evaluates an expression that has a value for each pod.
func (e *evaluation) perPod(ctx context.Context, expression string, pods []*state, window time.Duration) {
	v, err := e.run(ctx, expression, pods)
	if err != nil {
		e.fail(err)
		return
	}
	values := make(map[string]int, len(v))
	for i := range v {
		name := v[i].Metric.Get("pod")
		if name == "" {
			e.fail(Errorf(WrongShape, "the expression of metric %q returns a value without the label \"pod\": write "+
				"sum by (pod) (...)", e.q.def.Name))
			return
		}
		if other, ok := values[name]; ok {
			e.fail(Errorf(WrongShape, "the expression of metric %q returns several values for a pod, which differ in "+
				"the labels %s: "+
				"write sum by (pod) (...)", e.q.def.Name, differing(v[other].Metric, v[i].Metric)))
			return
		}
		values[name] = i
	}
	e.answer.Values = slices.Grow(e.answer.Values, len(v))
	for _, p := range pods {
		i, ok := values[p.pod.Name]
		switch {
		case !ok:
			e.missing(p.pod.Name, e.explain(p))
		case v[i].H != nil:
			e.fail(Errorf(WrongShape, "the expression of metric %q returns a histogram", e.q.def.Name))
			return
		case !finite(v[i].F):
			e.missing(p.pod.Name, cmp.Or(e.lacking(p), e.notFinite(v[i].F)))
		default:
			e.answer.Values = append(e.answer.Values, Value{
				Pod: p.pod.Name, Value: v[i].F, Time: e.timeOf(p.at), Window: window,
			})
		}
	}
}

// finite reports whether v can be served: it is neither NaN nor beyond MaxValue.
func finite(v float64) bool { return math.Abs(v) <= MaxValue }

// differing names the labels in which two series differ.
func differing(a, b labels.Labels) string {
	var names []string
	for _, x := range []labels.Labels{a, b} {
		x.Range(func(l labels.Label) {
			if a.Get(l.Name) != b.Get(l.Name) && !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
		})
	}
	slices.Sort(names)
	return list(names)
}
