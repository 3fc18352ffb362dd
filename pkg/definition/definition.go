// Package definition compiles the query of a metric (appmetrics, backend) from its declaration in an
// autoscaler (demand). The server and the doctor share it, so that a metric means the same to both.
package definition

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// SelectorsOwner is the key of the share of memory and of a backend's turns that is used by the expressions of metrics
// that an administrator names, with a selector that an autoscaler adds. There can be very many of them, and they must
// not use up the share of the metrics without a selector. No namespace has this name.
const SelectorsOwner = "selectors of autoscalers"

// Named returns the metrics that an administrator's file names.
func Named(f *adminfile.File) []demand.Named {
	all := make([]demand.Named, 0, len(f.Metrics))
	for i := range f.Metrics {
		m := &f.Metrics[i]
		n := demand.Named{
			Name: m.Name, Resource: schema.ParseGroupResource(m.Resource), Backend: m.Backend,
			Ask: sample.Ask{Path: m.Path, Scheme: m.Scheme}, Expression: m.Query,
			NamespaceLabel: m.NamespaceLabel, NameLabel: m.NameLabel, MissingIsZero: m.Missing == adminfile.MissingZero,
		}
		n.Namespace, n.Service, n.ServicePort, _ = adminfile.ParseService(m.Service) // it was checked
		all = append(all, n)
	}
	return all
}

// Compile returns the query of a metric of scraped pods. If the expression is from the HPA, an error begins with
// its location.
func Compile(m *demand.Metric) (*appmetrics.Query, error) {
	return compile(m, appmetrics.Compile)
}

// CompileRemote returns the expression of a metric that comes from a backend. Its result depends only on series of the
// namespace, unless an administrator names the metric. Errors are like those of Compile.
func CompileRemote(m *demand.Metric, namespace string, of *backend.Config) (backend.Expression, error) {
	return compile(m, func(d appmetrics.Definition) (e backend.Expression, err error) {
		if m.Type == autoscalingv2.ObjectMetricSourceType && m.Expression == "" {
			return e, fmt.Errorf("metric %q is of type Object, and backend %q does not say which series belong to an object: "+
				"write an expression in annotation %s", m.Name, of.Name, kubeapi.QueriesAnnotation)
		}
		r, err := appmetrics.CompileRemote(d, of.PodLabel)
		if err != nil {
			return e, err
		}
		if m.Named != nil {
			owner := ""
			if len(r.Matchers) > 0 {
				owner = SelectorsOwner
			}
			if e, err = backend.Trust(r.Expression, owner, strings.Join(d.By, ",")); err != nil {
				return e, err
			}
			return e.Narrow(r.Matchers...)
		}
		return backend.Confine(r.Expression, of.NamespaceLabel, namespace, r.Matchers...)
	})
}

// compile calls f with the definition of a metric.
func compile[T any](m *demand.Metric, f func(appmetrics.Definition) (T, error)) (T, error) {
	d := appmetrics.Definition{Name: m.Name, Expression: m.Expression, Window: m.Window, Shape: appmetrics.PerPod}
	switch {
	case m.Named != nil:
		d.Shape, d.By = appmetrics.Grouped, m.Named.By()
	case m.Type != autoscalingv2.PodsMetricSourceType:
		d.Shape = appmetrics.Single
	}
	for _, r := range m.Selector {
		d.Selector = append(d.Selector, appmetrics.Requirement{
			Label: r.Key, Operator: appmetrics.Operator(r.Operator), Values: r.Values,
		})
	}
	compiled, err := guard(func() (T, error) { return f(d) })
	// The expression of a named metric was checked with the file, so only the selector of an autoscaler can be wrong.
	if err != nil && m.ExpressionAt != "" && m.Named == nil {
		err = fmt.Errorf("%s: %w", m.ExpressionAt, err)
	}
	return compiled, err
}

// guard calls f and turns a panic into an error: no expression of a user may end the server.
func guard[T any](f func() (T, error)) (result T, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("this is a bug in metrics-server: report it with this expression: %v", v)
		}
	}()
	return f()
}
