package appmetrics

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Remote is a Definition compiled for another server that evaluates PromQL.
type Remote struct {
	Expression string            // without Matchers
	Matchers   []*labels.Matcher // the metric's selector, to be added to every selector in Expression
}

// CompileRemote compiles a Definition whose expression another server evaluates. Ranges, offsets and patterns for names
// are not limited here, because that server has its own limits. pod is the label that has the name of the pod of a
// series.
//
// The answers of that server do not include the type of a family, so the default expression follows from the name
// alone: X_total and X_per_second are the rate of X_total, and any other name is the value. The error is an *Error.
func CompileRemote(d Definition, pod string) (*Remote, error) {
	q := &Query{def: d}
	if err := q.compileSelector(true); err != nil {
		return nil, err
	}
	r := &Remote{Expression: d.Expression, Matchers: q.matchers}
	if d.Expression == "" {
		var err error
		r.Expression, err = q.remoteDefault(pod)
		return r, err
	}
	expr, err := q.parse()
	if err != nil {
		return nil, err
	}
	return r, q.checkShape(expr, pod)
}

// remoteDefault returns the default expression for another server.
func (q *Query) remoteDefault(pod string) (string, error) {
	name := strings.ReplaceAll(q.def.Name, "-", "_")
	if name == "" || len(name) > maxName {
		return "", Errorf(BadExpression, "the name of a metric must have 1 to %d bytes", maxName)
	}
	for _, r := range q.def.Selector {
		if r.Label == "quantile" {
			return "", Errorf(BadExpression, "the selector of metric %q asks for a quantile, and a backend does not report the "+
				"type of a metric: write an expression, such as histogram_quantile(0.99, sum by (%s, le) (rate(%s_bucket[5m])))",
				q.def.Name, pod, name)
		}
	}
	by := ""
	if q.def.Shape == PerPod {
		by = "by (" + pod + ") "
	}
	series, rate := RemoteSeries(name)
	if !rate {
		return fmt.Sprintf("sum %s(%s)", by, selectorText(series, nil)), nil
	}
	return fmt.Sprintf("sum %s(rate(%s[%s]))", by, selectorText(series, nil), model.Duration(q.def.Window)), nil
}

// RemoteSeries returns the name of the series that the default expression of a metric reads, and whether it is their
// rate.
func RemoteSeries(metric string) (name string, rate bool) {
	name = strings.ReplaceAll(metric, "-", "_")
	if base, ok := strings.CutSuffix(name, "_per_second"); ok && base != "" {
		return strings.TrimSuffix(base, "_total") + "_total", true
	}
	return name, strings.HasSuffix(name, "_total")
}
