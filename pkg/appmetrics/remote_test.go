package appmetrics

import (
	"strings"
	"testing"
	"time"
)

func TestCompileRemote(t *testing.T) {
	code := Requirement{Label: "code", Operator: In, Values: []string{"500"}}
	quantile := Requirement{Label: "quantile", Operator: In, Values: []string{"0.99"}}
	for _, tt := range []struct {
		name, expression string
		shape            Shape
		selector         []Requirement
		want, err        string
	}{
		{name: "queue", want: "sum by (k8s_pod) (queue)"},
		{name: "queue-length", want: "sum by (k8s_pod) (queue_length)"},
		{name: "http_requests_total", want: "sum by (k8s_pod) (rate(http_requests_total[2m]))"},
		{name: "http-requests-per-second", want: "sum by (k8s_pod) (rate(http_requests_total[2m]))"},
		{name: "x_total_per_second", want: "sum by (k8s_pod) (rate(x_total[2m]))"},
		{name: "_per_second", want: "sum by (k8s_pod) (_per_second)"},
		{name: "on", want: `sum by (k8s_pod) ({__name__="on"})`},
		{name: "queue", shape: Single, want: "sum (queue)"},
		{name: "queue_total", shape: Single, want: "sum (rate(queue_total[2m]))"},
		{name: "queue", selector: []Requirement{code}, want: `sum by (k8s_pod) (queue)`},
		{name: "latency", selector: []Requirement{quantile}, err: "does not report the type of a metric: write an " +
			"expression, such as histogram_quantile(0.99, sum by (k8s_pod, le) (rate(latency_bucket[5m])))"},
		{err: "must have 1 to 512 bytes"},

		{expression: `sum by (k8s_pod) (rate({__name__=~"a.*"}[1h] offset 1d))`},
		{expression: "x{quantile=\"0.5\"}", selector: []Requirement{quantile}},
		{expression: "sum by (pod) (x)", err: `its result has no label "k8s_pod"`},
		{expression: "sum by (node) (x) * on (node) group_left (k8s_pod) kube_pod_info"},
		{expression: "sum(x)", shape: Single},
		{expression: "sum by (k8s_pod) (x)", shape: Single, err: `remove "by (k8s_pod)"`},
		{expression: "sum(", err: "wrong at character 5: not valid PromQL"},
		{expression: "x[5m]", err: "it returns a range of samples"},
		{expression: strings.Repeat("x", maxExpression+1), err: "at most 4096 are allowed"},
		{name: "x", selector: []Requirement{{Label: "a", Operator: "Like"}}, err: "unknown operator"},
	} {
		r, err := CompileRemote(Definition{
			Name: tt.name, Expression: tt.expression, Shape: tt.shape, Selector: tt.selector, Window: 2 * time.Minute,
		}, "k8s_pod")
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q %q: got %v, want %s", tt.name, tt.expression, err, tt.err)
			}
			continue
		case tt.expression != "":
			tt.want = tt.expression
		}
		if err != nil || r.Expression != tt.want || len(r.Matchers) != len(tt.selector) {
			t.Errorf("%q %q: got %+v, %v, want %s", tt.name, tt.expression, r, err, tt.want)
		}
	}
}
