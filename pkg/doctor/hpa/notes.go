package hpa

import (
	"context"
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/demand"
	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

// note records what the custom metrics server says about a metric besides its value; n may be nil.
func (e *examination) note(m *Metric, n *kubeapi.Notes) {
	if n == nil {
		return
	}
	m.Backend, m.Expression, m.ByRule = n.Backend, n.Expression, n.Ruled
	if n.Named {
		m.Named = "(give a copy of that file with --config to see how)"
	}
	if !e.noted {
		e.noted = true
		e.add(judgeFile(n)...)
	}
	for _, b := range n.FailingBackends {
		// The backends of others are no problem of this HPA.
		if b.Name == n.Backend && !slices.Contains(e.failing, b.Name) {
			e.failing = append(e.failing, b.Name)
			e.add(judgeBackend(b))
		}
	}
}

// state asks the custom metrics server for its default backend and the state of its file and its backends, once, with a
// request for a metric that nobody wants. h is an HPA with other metrics that the server serves.
func (e *examination) state(ctx context.Context, h *demand.HPA) {
	external := false
	for i := range h.Metrics {
		if h.Metrics[i].Type == autoscalingv2.ExternalMetricSourceType {
			external = true // this project serves them, or they would not be there
			continue
		}
		who := e.group(ctx, kubeapi.CustomMetricsGroup, kubeapi.CustomMetricsAPIServices())
		if who.used != "" && !who.foreign {
			e.askState(ctx, e.api.customRoot()+"/namespaces/"+h.Namespace+"/pods/*/doctor")
			return
		}
	}
	if external {
		e.askState(ctx, externalRoot+"/namespaces/"+h.Namespace+"/doctor")
	}
}

func (e *examination) askState(ctx context.Context, at string) {
	if e.noted {
		return
	}
	e.noted = true
	switch n, err := e.api.getMetric(ctx, at, nil, &metav1.Status{}); {
	case n != nil:
		e.defaultBackend = n.DefaultBackend
		e.add(judgeFile(n)...)
		for _, b := range n.FailingBackends {
			e.add(judgeBackend(b))
		}
	case apierrors.IsForbidden(err) && !doctor.DistrustsFrontProxy(err):
		e.add(doctor.Unanswered(checkBackends, "the backends of the custom metrics server cannot be checked", err, "get "+at))
	}
}

// judgeFile returns what is wrong with the file of the custom metrics server.
func judgeFile(n *kubeapi.Notes) (lines []doctor.Line) {
	add := func(message, cause, remedy string) {
		lines = append(lines, doctor.NewLine(checkBackends, doctor.Warning, message, cause, remedy))
	}
	const check = "an administrator finds each mistake in the log of the custom metrics server, or with metrics-server " +
		"custom-metrics --check-config"
	if n.InvalidFile {
		add("the custom metrics server cannot use the administrator's file (--config)",
			"the previous version stays in effect, but the server would not start again with this one", check)
	}
	if n.LeftOutRules > 0 {
		add("the custom metrics server leaves out "+doctor.Plural(n.LeftOutRules, "rule")+
			" of prometheus-adapter's configuration", "they have mistakes or are not supported: metrics that only they "+
			"define have no value, or another meaning", check)
	}
	return lines
}

func judgeBackend(b kubeapi.BackendNote) doctor.Line {
	return doctor.NewLine(checkBackends, doctor.Problem,
		fmt.Sprintf("%d of %d queries of backend %q fail", b.Failing, b.Queries, b.Name),
		"its last answers are served for four intervals; then its metrics have no value",
		"an administrator finds the reason in the log of the custom metrics server (docs/troubleshooting.md, "+
			"CustomMetricsServerBackendFailing)")
}
